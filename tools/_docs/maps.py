"""Which line implements which part of a paper: text and "module:object"."""

_MAX_FORMER = "saccade.models.max_former"
_COMPRESS = "saccade.compress"
_MAMBA_PKD = "saccade.models.mamba_pkd"
_CNN_SVM = "saccade.models.cnn_svm"
_CVT = "saccade.models.cvt"
_DAVIT = "saccade.models.davit"
_INCEPTION = "saccade.models.inception"
_KARAT = "saccade.models.karat"
_MEDVITV2 = "saccade.models.medvitv2"
_SPIKING = "saccade.models._spiking"

MAPS: dict[str, list[tuple[str, str]]] = {
    "max_former": [
        ("stem, stages, head", f"{_MAX_FORMER}:MaxFormer"),
        ("dimensions, depths, mixers; the variants", f"{_MAX_FORMER}:MaxFormerConfig"),
        ("neurons: equations 1 to 3, surrogate, reset", f"{_SPIKING}:LIF.forward"),
        ("their formula", "saccade.ops:lif"),
        ("the batch norm within their pass", "saccade.ops:affine_lif"),
        ("LIF, convolution, batch norm", f"{_SPIKING}:Unit"),
        ("embedding without pooling", f"{_MAX_FORMER}:OrigEmbed.forward"),
        ("embedding with max pooling", f"{_MAX_FORMER}:PoolEmbed.forward"),
        ("embedding of events", f"{_MAX_FORMER}:EventEmbed.forward"),
        ("token mixers on the membrane shortcut", f"{_MAX_FORMER}:Block.forward"),
        ("attention of spikes, q (k^T v) 0.125", f"{_MAX_FORMER}:SpikingSelfAttention.mix"),
        ("feed-forward", f"{_MAX_FORMER}:Mlp.forward"),
        ("rates of spikes to the head", f"{_SPIKING}:SpikingClassifier.pool"),
        ("Max-ResNet's blocks", "saccade.models.max_resnet:Block.forward"),
        ("firing rates, synaptic operations, energy", f"{_SPIKING}:activity"),
        ("the six arms of the reproduction", "saccade.systems.max_former:run"),
    ],
    "mamba_pkd": [
        ("teacher and students: tokens, blocks, mean, head", f"{_MAMBA_PKD}:MambaPKD"),
        ("sizes and order of the scan", f"{_MAMBA_PKD}:MambaPKDConfig"),
        ("x + Mamba(LN(x)), in one or both directions", f"{_MAMBA_PKD}:Block.forward"),
        ("the Mamba block", "saccade.nn:Mamba"),
        ("the selective scan", "saccade.ops:selective_scan"),
        ("the loss: alpha hard + (1 - alpha) soft", f"{_COMPRESS}.losses:distillation_loss"),
        ("students one after the other, three rules", f"{_COMPRESS}.progressive:distill"),
        ("the loss of each rule", f"{_COMPRESS}.progressive:ProgressiveModule.training_step"),
        ("B-DISTIL: K+ and K-", f"{_COMPRESS}._weights:MarginWeights"),
        ("B-DISTIL: weighted distance with a margin", f"{_COMPRESS}.losses:margin_loss"),
        ("F_k, the first k students; composition", f"{_COMPRESS}.ensemble:AnytimeEnsemble"),
        ("early exit", f"{_COMPRESS}.ensemble:AnytimeEnsemble.predict_early"),
        ("the count of the work", f"{_COMPRESS}.macs:count_macs"),
        ("the arms of the reproduction", "saccade.systems.mamba_pkd:run"),
    ],
    "cnn_svm": [
        ("layers and sizes: table 2", f"{_CNN_SVM}:CNNSVM"),
        ("convolution of 5 x 5, ReLU, pooling", f"{_CNN_SVM}:ConvBlock.forward"),
        ("dense layer of 1,024", f"{_CNN_SVM}:CNNSVM.pool"),
        ("the hinge and its square: equations 4 to 6", "saccade.learn.losses:HingeLoss.forward"),
        ("the class of an image", f"{_CNN_SVM}:predict"),
        ("the two arms of the reproduction", "saccade.systems.cnn_svm:run"),
    ],
    "cvt": [
        ("stages, class token, head", f"{_CVT}:CvT.forward_features"),
        ("CvT-13, CvT-21, CvT-W24", f"{_CVT}:CvTConfig"),
        ("convolutional token embedding: section 3.1", f"{_CVT}:ConvEmbed"),
        ("convolutional projection and attention: equation 2, section 3.2",
         f"{_CVT}:Attention.forward"),
        ("block: attention and feed-forward", f"{_CVT}:Block.forward"),
        ("a stage, with its class token and position encoding", f"{_CVT}:Stage.tokens"),
        ("the four arms of the reproduction", "saccade.systems.cvt:arms"),
    ],
    "davit": [
        ("stem, stages, head", f"{_DAVIT}:DaViT"),
        ("tiny, small, base, large", f"{_DAVIT}:DaViTConfig"),
        ("patch embedding", f"{_DAVIT}:Stem.forward"),
        ("between the stages", f"{_DAVIT}:Downsample.forward"),
        ("window attention: section 3.1", f"{_DAVIT}:WindowAttention.forward"),
        ("channel group attention: equation 4", f"{_DAVIT}:ChannelAttention.forward"),
        ("block: position encodings, attention, feed-forward", f"{_DAVIT}:Block.forward"),
        ("the three arms of the reproduction", "saccade.systems.davit:run"),
    ],
    "inception_v4": [
        ("stems, blocks, reductions: figures 3 to 19", f"{_INCEPTION}:_Layers"),
        ("the networks, block by block", f"{_INCEPTION}:InceptionNet"),
        ("branches of a block", f"{_INCEPTION}:Inception.forward"),
        ("residual block, scaled: section 3.3", f"{_INCEPTION}:Residual.forward"),
        ("convolution, batch norm, ReLU", f"{_INCEPTION}:Conv.forward"),
        ("the learning rate: section 4", "saccade.learn.module:learning_rate"),
        ("the three arms of the reproduction", "saccade.systems.inception_v4:run"),
        ("activations before the pooling", "saccade.systems.inception_v4:initial_std"),
    ],
    "karat": [
        ("vision Transformer, tiny, small, base", f"{_KARAT}:KArAt"),
        ("blockwise and universal operators; grid size, rank, basis", f"{_KARAT}:KArAtConfig"),
        ("the operator: coefficients and their start", f"{_KARAT}:Operator"),
        ("Fourier units: equation 2", f"{_KARAT}:Operator.reduce"),
        ("its kernel's formula", "saccade.reference.kan:kan_linear"),
        ("expansion to N, modular attention", f"{_KARAT}:Operator.forward"),
        ("projection onto the simplex: algorithm 1", f"{_KARAT}:project_simplex"),
        ("scores, operator, values", f"{_KARAT}:Attention.forward"),
        ("the four arms of the reproduction", "saccade.systems.karat:run"),
        ("rank of the attention", "saccade.systems.karat:attention_rank"),
    ],
    "medvitv2": [
        ("stem, stages, head", f"{_MEDVITV2}:MedViTV2"),
        ("block types and sizes; tiny, small, base, large", f"{_MEDVITV2}:MedViTV2Config"),
        ("patch embedding at the head of a block", f"{_MEDVITV2}:PatchEmbed"),
        ("LFP: x + NA(BN(x)), then the locality feed-forward", f"{_MEDVITV2}:LFP.forward"),
        ("dilated neighborhood attention", "saccade.nn:NeighborhoodAttention2d"),
        ("its formula: NAT, equations 1 to 3", "saccade.reference.neighborhood_attention:"
         "neighborhood_attention"),
        ("which blocks dilate, and by how much", f"{_MEDVITV2}:MedViTV2Config.stage_dilation"),
        ("locality feed-forward: y + f(y), depthwise, with gates",
         f"{_MEDVITV2}:LocalityFeedForward.forward"),
        ("GFP: attention and convolution share the channels, then the KAN",
         f"{_MEDVITV2}:GFP.forward"),
        ("efficient self-attention over pooled keys", f"{_MEDVITV2}:EMHSA.forward"),
        ("multi-head convolutional attention", f"{_MEDVITV2}:MHCA.forward"),
        ("how GFP splits its channels", f"{_MEDVITV2}:MedViTV2Config.split"),
        ("KAN feed-forward [C, 2C, C]", "saccade.nn:FasterKAN"),
        ("one KAN layer: layer norm, basis, weights", "saccade.nn:KANLinear.forward"),
        ("the basis 1 - tanh^2", "saccade.ops:kan_basis"),
        ("the five arms of the reproduction", "saccade.systems.medvitv2:run"),
        ("corrupted test images", "saccade.systems.medvitv2:corrupted_accuracy"),
    ],
}  # fmt: skip
