"""Warm-up and cosine in optimiser steps."""

import math
from itertools import pairwise

import pytest

from lewm.schedule import lr_factor


def test_it_rises_linearly_from_zero_then_falls_as_a_cosine_to_zero():
    values = [lr_factor(step, total=1000, warmup=10) for step in range(1001)]
    assert values[:11] == pytest.approx([step / 10 for step in range(11)])
    assert values[505] == pytest.approx(0.5 * (1 + math.cos(math.pi * 495 / 990)))
    assert values[1000] == pytest.approx(0)
    assert all(a >= b for a, b in pairwise(values[10:]))


def test_without_warmup_it_starts_at_the_peak_and_after_the_end_it_stays_at_zero():
    assert lr_factor(0, total=10, warmup=0) == 1
    assert lr_factor(25, total=10, warmup=0) == pytest.approx(0)


def test_a_cosine_over_ten_times_the_run_is_barely_begun():
    assert lr_factor(1000, total=10_000, warmup=100) > 0.97
