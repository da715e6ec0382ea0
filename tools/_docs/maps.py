"""Which line implements which part of a paper: text and "module:object"."""

_MAX_FORMER = "saccade.models.max_former"
_COMPRESS = "saccade.compress"
_MAMBA_PKD = "saccade.models.mamba_pkd"
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
