"""Tensors are sent to other processes by their content."""

import io
import pickle

import pytest
import torch
from perceptune.runtime.tensors import _content


@pytest.mark.parametrize(
    "tensor",
    [
        torch.randn(3, 4, 5),
        torch.randn(6, 4).T,  # not contiguous
        torch.randn(7).to(torch.bfloat16),
        torch.randint(0, 255, (5,), dtype=torch.uint8)[1:],
        torch.arange(5) % 2 == 0,
        torch.ones(1, 1, 0, 0, dtype=torch.bool),  # what rows without padding have as a mask
        torch.tensor(3),
        torch.empty(0, 3),
    ],
)
def test_a_tensor_arrives_as_it_was(tensor: torch.Tensor) -> None:
    file = io.BytesIO()
    pickler = pickle.Pickler(file, protocol=5)
    pickler.dispatch_table = {torch.Tensor: _content}
    pickler.dump({"tensor": tensor})
    found = pickle.loads(file.getvalue())["tensor"]
    assert found.dtype == tensor.dtype
    assert found.shape == tensor.shape
    assert torch.equal(found, tensor)
    found.zero_()  # it has its own memory
