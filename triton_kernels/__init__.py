"""Triton kernels, one module an operator.

Importing needs triton and no GPU. With TRITON_INTERPRET=1 in the environment before the first
import the kernels run in Triton's interpreter, on CPU tensors.
"""

from __future__ import annotations

from saccade._extras import require

require("triton", extra="triton", purpose="saccade.triton_kernels")
