"""Packed products equal ordinary ones."""

import pytest
import torch

from layers.cpu.packed_products import PackedMatrices, can_pack

CPU = torch.device("cpu")


@pytest.mark.skipif(not can_pack(CPU, torch.float32), reason="oneDNN is not here")
@torch.inference_mode()
@pytest.mark.parametrize("groups", [1, 5])
@pytest.mark.parametrize("count", [1, 40, 41, 100])
def test_any_number_of_rows(groups, count):
    torch.manual_seed(0)
    matrices, rows = torch.randn(groups, 17, 30), torch.randn(count, groups, 30)
    products = PackedMatrices(matrices, rows=40).multiply(rows)
    expected = torch.einsum("gmk,ngk->ngm", matrices.double(), rows.double())
    torch.testing.assert_close(products.double(), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("device", "dtype"), [("meta", torch.float32), ("cpu", torch.float64), ("cpu", torch.float16)])
def test_other_devices_and_dtypes_are_not_packed(device, dtype):
    assert not can_pack(torch.device(device), dtype)


def test_nor_is_anything_without_onednn(monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not can_pack(CPU, torch.float32)
