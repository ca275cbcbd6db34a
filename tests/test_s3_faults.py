"""Shards in an S3 bucket whose service fails for a while, or for good."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lewm.cli import main
from lewm.datasets.schema import open_source

pytest.importorskip("s3fs", reason="needs pip install 'lewm[remote]'")
moto = pytest.importorskip("moto.server", reason="needs pip install 'moto[s3,server]'")

SHARD = "shard-000001.tar"
FOREVER = 10**6
pytestmark = pytest.mark.usefixtures("patient")


@pytest.fixture
def bucket(shards, monkeypatch) -> Iterator[str]:
    """The URL of a bucket that holds the shards."""
    import boto3
    import fsspec

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        url = "http://{}:{}".format(*server.get_host_and_port())
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        s3 = boto3.client("s3", endpoint_url=url)
        s3.create_bucket(Bucket="lewm")
        for path in shards.iterdir():
            s3.upload_file(str(path), "lewm", f"some/set/{path.name}")
        yield "s3://lewm/some/set"
    finally:
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        server.stop()


def slow_down() -> Exception:
    from botocore.exceptions import ClientError

    about: Any = {"Error": {"Code": "SlowDown", "Message": "Reduce your request rate"}}
    return ClientError(about | {"ResponseMetadata": {"HTTPStatusCode": 503}}, "GetObject")


def unavailable() -> Exception:
    from botocore.exceptions import ClientError

    about: Any = {"Error": {"Code": "503", "Message": "Service Unavailable"}}
    return ClientError(about | {"ResponseMetadata": {"HTTPStatusCode": 503}}, "GetObject")


def timeout() -> Exception:
    from botocore.exceptions import ReadTimeoutError

    return ReadTimeoutError(endpoint_url="http://127.0.0.1")


@pytest.fixture
def failing(monkeypatch) -> Any:
    """Lets the next so many requests for a shard end in an error; counts them."""
    from aiobotocore.client import AioBaseClient

    real, asked = AioBaseClient._make_api_call, Counter()

    def fail(error: Any, times: int) -> Counter:
        async def call(self: Any, operation: str, about: dict[str, Any]) -> Any:
            if operation == "GetObject" and about["Key"].endswith(SHARD):
                asked[SHARD] += 1
                if asked[SHARD] <= times:
                    raise error()
            return await real(self, operation, about)

        monkeypatch.setattr(AioBaseClient, "_make_api_call", call)
        return asked

    return fail


def first_episode_of(source: Any, name: str) -> int:
    return next(e for e in range(len(source.lengths)) if source.located(e)[0].name == name)


@pytest.mark.parametrize("error", [slow_down, unavailable, timeout])
def test_what_passes_is_tried_again_and_the_bytes_are_right(bucket, shards, failing, error):
    source, near = open_source(bucket), open_source(shards)
    asked = failing(error, 2)
    e = first_episode_of(near, SHARD)
    assert (source.frames(e, np.array([0])) == near.frames(e, np.array([0]))).all()
    assert asked[SHARD] == 3
    assert (source.path / SHARD).read_bytes() == (shards / SHARD).read_bytes()


@pytest.mark.parametrize("error", [slow_down, unavailable, timeout])
def test_what_does_not_pass_ends_with_one_line_and_leaves_no_part(bucket, failing, error, capsys, tmp_path):
    import s3fs

    s3fs.S3FileSystem.retries, tries = 1, s3fs.S3FileSystem.retries  # its own, within each of ours
    try:
        asked = failing(error, FOREVER)
        assert main(["inspect", bucket, "--verify"]) == 2
    finally:
        s3fs.S3FileSystem.retries = tries
    said = capsys.readouterr().err
    assert "Traceback" not in said
    (line,) = [line for line in said.splitlines() if line.startswith("lewm: error: ")]
    assert f"cannot fetch {bucket}/{SHARD}: " in line
    assert "(4 attempts)" in line
    assert asked[SHARD] >= 4
    assert not [path for path in Path(tmp_path / "cache").rglob("*") if path.name in (SHARD, f".{SHARD}.tmp")]
