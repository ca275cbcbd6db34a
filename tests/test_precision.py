import pytest
import torch

from lewm import precision


@pytest.mark.parametrize(("native", "expected"), [(True, "bf16-mixed"), (False, "32-true")])
def test_a_cpu_that_only_emulates_bf16_trains_in_float32(monkeypatch, native, expected):
    monkeypatch.setattr(precision, "cpu_computes_bf16", lambda: native)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert precision.best_precision("cpu") == precision.best_precision("auto") == expected


@pytest.mark.parametrize(("native", "expected"), [(True, "bf16-mixed"), (False, "32-true")])
def test_a_gpu_is_asked_whether_it_computes_bf16_itself(monkeypatch, native, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native or including_emulation)
    assert precision.best_precision("auto") == precision.best_precision("cuda") == expected


def test_other_accelerators_train_in_float32():
    assert precision.best_precision("tpu") == "32-true"
