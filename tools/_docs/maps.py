"""Which line implements which part of a paper: text and "module:object"."""

_KARAT = "saccade.models.karat"
_MEDVITV2 = "saccade.models.medvitv2"

MAPS: dict[str, list[tuple[str, str]]] = {
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
