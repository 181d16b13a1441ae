import pytest
import torch

from utils.precision import PRECISIONS, autocast, check_precision
from ytvis.files import InputError

CPU = torch.device("cpu")


@pytest.mark.parametrize(("precision", "dtype"), PRECISIONS.items())
def test_products_are_computed_in_the_precision(precision, dtype):
    with autocast(precision, CPU)():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


def test_half_precision_needs_a_gpu():
    check_precision("fp16", torch.device("cuda"))
    for precision in ("fp32", "bf16"):
        check_precision(precision, CPU)
    with pytest.raises(InputError, match="fp16 needs a GPU, this is cpu"):
        check_precision("fp16", CPU)
