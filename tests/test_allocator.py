"""Freed memory stays with the process, unless the user says otherwise."""

import os
import platform
import subprocess
import sys

import pytest

CODE = """
import resource, sys, torch
from lewm.allocator import keep_freed
def work():
    one, two, three, four = (torch.ones(6_000_000) for _ in range(4))  # 24 MB each
def faults():
    work()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        work()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
given_back = faults()
print(keep_freed(), end=" ")
work()
print(given_back, faults())
"""


def run(**environment: str) -> tuple[str, int, int]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_") and k != "GLIBC_TUNABLES"}
    done = subprocess.run([sys.executable, "-c", CODE], env=clean | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    kept, before, after = done.stdout.split()
    return kept, int(before), int(after)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_pages_of_freed_tensors_are_not_asked_for_again() -> None:
    kept, given_back, after = run()
    assert kept == "True"
    assert given_back > 20 and after < given_back / 10


def test_the_users_own_settings_stand() -> None:
    kept, given_back, after = run(MALLOC_TRIM_THRESHOLD_="1000000")
    assert kept == "False"
    assert after > given_back / 2
