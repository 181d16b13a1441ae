import pytest
import torch
from torch import nn

from inference.benchmark import Measurement, convolution_peak, count_gflop, format_columns
from layers.deform_conv import ModulatedDeformConv2d, available_backends, deform_backend
from utils.timer import StageTimer

CPU = torch.device("cpu")


def measured(name, network_s, ends):
    clock = iter([time for number in range(len(ends)) for time in (number, number + network_s)])
    measurement = Measurement(name, StageTimer(CPU, clock=lambda: next(clock)))
    for end in ends:
        with measurement.timer("network"):
            pass
        measurement.frame_done()
        measurement.ends[-1] = end
    return measurement


def test_a_summary_counts_from_the_end_of_the_first_frame():
    summary = measured("run", 0.5, [10.0, 10.6, 11.2, 12.0]).summary(gflop=100, peak=400)
    assert summary["frames"] == 4
    assert summary["stages"]["network"]["median_ms"] == pytest.approx(500)
    assert summary["wall_ms"]["median"] == pytest.approx(600)
    assert summary["fps"] == pytest.approx(1.5)
    assert summary["overhead"] == pytest.approx(0.2)
    assert summary["gflops"] == pytest.approx(200)
    assert summary["part_of_peak"] == pytest.approx(0.5)


def test_a_batch_is_a_time_in_equal_parts():
    measurement = measured("run", 0.5, [10.0, 10.1, 12.0, 12.1, 14.2])
    measurement.batch_size = 2
    summary = measurement.summary()
    assert summary["wall_ms"]["median"] == pytest.approx((1000 + 1100) / 2)
    assert summary["fps"] == pytest.approx(4 / 4.2)


def test_what_cannot_be_told_is_left_out():
    one = measured("run", 0.5, [10.0]).summary()
    assert one.keys() == {"frames", "stages"}
    assert Measurement("run", StageTimer(CPU)).summary() == {"frames": 0, "stages": {}}


def test_columns_stand_side_by_side_with_their_ratio():
    runs = (measured("this run", 0.5, [0.0, 0.6]), measured("baseline", 1.0, [0.0, 1.5]), measured("none", 1.0, []))
    table = format_columns({run.name: run.summary() for run in runs})
    lines = [line.split("  ") for line in table.splitlines()]
    assert len({len(line) for line in table.splitlines()}) == 1
    rows = {line[0].strip(): [cell.strip() for cell in line[1:] if cell.strip()] for line in lines}
    assert rows["wall, ms"] == ["600.0 (p95 600.0)", "1500.0 (p95 1500.0)", "-"]
    assert rows["times the first"] == ["1.00", "2.50", "-"]
    assert rows["FPS"] == ["1.67", "0.67", "-"]


@pytest.mark.parametrize("backend", available_backends())
def test_operations_are_counted_in_deformable_convolutions_too(backend):
    plain = nn.Conv2d(3, 5, 3, padding=1)
    assert count_gflop(plain, (4, 6)) * 1e9 == pytest.approx(2 * 3 * 5 * 9 * 24)
    network = ModulatedDeformConv2d(3, 5, 3)
    with deform_backend(backend):
        counted = count_gflop(network, (4, 6)) * 1e9
    assert counted == pytest.approx(2 * 3 * 9 * 24 * (5 + 27))  # the convolution, and that of offsets and modulation


def test_the_peak_is_positive_and_in_the_asked_dtype():
    seen = []

    def convolve(conv):
        conv.register_forward_hook(lambda module, inputs, out: seen.append(inputs[0].dtype))
        return nn.Sequential(nn.AvgPool2d(16), conv)  # a sixteenth of each side: the test need not wait

    assert convolution_peak(CPU, torch.float32, convolve) > 0
    assert set(seen) == {torch.float32}
