"""Reader for weights.safetensors written by an untrusted room. TRUSTED.

The format (safetensors): 8 bytes little-endian header length, JSON header,
tensor bytes. The header is parsed with our strict JSON and every range is checked before a byte of
data is touched; the data must be covered exactly once, in order, without holes.
"""

from __future__ import annotations

import math
import mmap
import struct
from pathlib import Path
from typing import Any

import torch

from trainer.wire import strict_json
from trainer.wire.refusal import Reason, Refused

MAX_HEADER = 4 << 20  # bytes
MAX_TENSORS = 20_000
MAX_RANK = 8

DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "C64": torch.complex64,
}


def load(path: Path, max_bytes: int, device: torch.device) -> dict[str, torch.Tensor]:
    """All tensors of the file by name, on `device`; raises Refused(WEIGHTS_FORMAT)."""
    size = path.stat().st_size
    if not 8 < size <= max_bytes:
        raise _bad(f"file of {size} bytes")
    with path.open("rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    (header_len,) = struct.unpack("<Q", data[:8])
    if not 0 < header_len <= min(MAX_HEADER, size - 8):
        raise _bad(f"header length {header_len}")
    try:
        header = strict_json.loads(data[8 : 8 + header_len], max_bytes=MAX_HEADER, max_depth=4)
    except strict_json.StrictJsonError as error:
        raise _bad(f"header {error.reason}") from None
    if not isinstance(header, dict) or len(header) > MAX_TENSORS:
        raise _bad("header is not an object of tensors")
    body = memoryview(data)[8 + header_len :]
    out, end = {}, 0
    for name, entry in header.items():
        dtype, shape, (start, stop) = _entry(entry)
        if start != end or stop > len(body):
            raise _bad("data ranges leave a hole, overlap or overrun")
        out[name] = _tensor(body[start:stop], dtype, shape, device)
        end = stop
    if end != len(body):
        raise _bad("bytes after the last tensor")
    return out


def _entry(entry: Any) -> tuple[torch.dtype, list[int], tuple[int, int]]:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _bad("entry keys")
    dtype = DTYPES.get(entry["dtype"]) if isinstance(entry["dtype"], str) else None
    shape, offsets = entry["shape"], entry["data_offsets"]
    if dtype is None or not _ints(shape) or not _ints(offsets) or len(offsets) != 2 or len(shape) > MAX_RANK:
        raise _bad("entry values")
    start, stop = offsets
    if stop - start != math.prod(shape) * dtype.itemsize:
        raise _bad("entry size")
    return dtype, shape, (start, stop)


def _ints(value: Any) -> bool:
    return isinstance(value, list) and all(type(x) is int and x >= 0 for x in value)


def _tensor(raw: memoryview, dtype: torch.dtype, shape: list[int], device: torch.device) -> torch.Tensor:
    if not raw:
        return torch.zeros(shape, dtype=dtype, device=device)
    if dtype is torch.bool and bytes(raw).strip(b"\0\1"):
        raise _bad("boolean byte other than 0 and 1")
    # A private copy: the file's owner is untrusted and a mapping would follow later writes.
    return torch.frombuffer(bytearray(raw), dtype=dtype).reshape(shape).to(device)


def _bad(detail: str) -> Refused:
    return Refused(Reason.WEIGHTS_FORMAT, detail)
