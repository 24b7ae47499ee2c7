"""Which errors come from a lack of memory, so that a job is tried again with smaller batches."""

import json
from pathlib import Path

import pytest
import torch
from perceptune.runtime.distributed import one_of_several
from perceptune.runtime.job import of_memory

CUBLAS = "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"
CACHE = (
    "To serve at least one request with the model's max seq len (2048), (1.2 GiB KV cache is needed, which is larger "
    "than the available KV cache memory (0.4 GiB)."
)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (RuntimeError(CUBLAS), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (ValueError(CACHE), True),
        (MemoryError(), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (ValueError("mat1 and mat2 shapes cannot be multiplied"), False),
    ],
)
def test_a_lack_of_memory_is_recognised(error: Exception, expected: bool) -> None:
    assert of_memory(error) == expected


@pytest.mark.parametrize(("message", "expected"), [(CUBLAS, ["memory", CUBLAS, None]), ("illegal access", None)])
def test_a_training_process_reports_a_lack_of_memory(message: str, expected: list[str] | None, tmp_path: Path) -> None:
    failure = tmp_path / "failure.json"
    (tmp_path / "job.json").write_text(json.dumps({"failure": str(failure)}))
    with pytest.raises(RuntimeError, match=r"CUBLAS|illegal"), one_of_several(tmp_path / "job.json"):
        raise RuntimeError(message)
    assert (json.loads(failure.read_text()) if failure.exists() else None) == expected
