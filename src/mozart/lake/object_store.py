"""Objects of the lake's store as files with an age: listing, deleting in batches, and one small text.

A folder is always meant with its closing slash: listing `raw/acme` never shows `raw/acme_dev` or `raw/acme2`, which
belong to others. Times are the store's own, `now()` as well, so that a wrong clock here makes no file old.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

from mozart.errors import TerminalError, TransientError
from mozart.lake.catalog_client import describe
from mozart.lake.lakehouse import Lakehouse

BATCH = 500
"""How many objects one request deletes (S3 takes 1000)."""


@dataclass(frozen=True)
class StoredFile:
    """An object: `path` with scheme and bucket, `size` in bytes, `modified` when its writing ended, in UTC."""

    path: str
    size: int
    modified: datetime


@dataclass(frozen=True)
class StoredUpload:
    """A multipart upload that was begun and neither completed nor aborted; its parts take room and no listing shows
    them. `begun` in UTC."""

    path: str
    number: str
    begun: datetime


class ObjectStore:
    """A client of the lake's store, with the lake's identity. Calls raise TransientError or TerminalError."""

    def __init__(self, lakehouse: Lakehouse) -> None:
        # Here, not at the top: 0.2 s that only maintenance needs.
        import boto3  # noqa: PLC0415
        from botocore.config import Config  # noqa: PLC0415

        settings = Config(
            s3={"addressing_style": "path"},
            retries={"max_attempts": 4, "mode": "standard"},
            connect_timeout=10,
            read_timeout=60,
        )
        self._client: Any = boto3.client(
            "s3",
            endpoint_url=lakehouse.s3_endpoint,
            region_name=lakehouse.s3_region,
            aws_access_key_id=lakehouse.access_key_id,
            aws_secret_access_key=lakehouse.secret_access_key.get_secret_value(),
            config=settings,
        )

    def now(self, folder: str) -> datetime:
        """The store's time, from its reply to a listing of `folder`."""
        bucket, prefix = split(folder)
        with _translated(f"listing {folder}"):
            reply = self._client.list_objects_v2(Bucket=bucket, Prefix=f"{prefix}/", MaxKeys=1)
        return parsedate_to_datetime(reply["ResponseMetadata"]["HTTPHeaders"]["date"])

    def list_files(self, folder: str) -> Iterator[StoredFile]:
        """Every object below `folder` (an s3 URI), in pages; the markers of empty folders are left out."""
        bucket, prefix = split(folder)
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{prefix}/")
        with _translated(f"listing {folder}"):
            for page in pages:
                for entry in page.get("Contents", ()):
                    if not entry["Key"].endswith("/"):
                        yield StoredFile(f"s3://{bucket}/{entry['Key']}", entry["Size"], entry["LastModified"])

    def list_uploads(self, folder: str) -> Iterator[StoredUpload]:
        """Every unfinished upload below `folder`."""
        bucket, prefix = split(folder)
        pages = self._client.get_paginator("list_multipart_uploads").paginate(Bucket=bucket, Prefix=f"{prefix}/")
        with _translated(f"listing the uploads to {folder}"):
            for page in pages:
                for entry in page.get("Uploads", ()):
                    # some stores list all uploads of the bucket, whatever the prefix
                    if entry["Key"].startswith(f"{prefix}/"):
                        yield StoredUpload(f"s3://{bucket}/{entry['Key']}", entry["UploadId"], entry["Initiated"])

    def abort(self, upload: StoredUpload) -> None:
        """End an unfinished upload and free its parts; nothing happens when it has ended."""
        bucket, key = split(upload.path)
        with _translated(f"aborting the upload of {upload.path}"):
            try:
                self._client.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload.number)
            except self._client.exceptions.NoSuchUpload:
                return

    def delete(self, paths: Sequence[str]) -> dict[str, str]:
        """Delete objects of one bucket or several; what could not be deleted, with the store's reason."""
        failed: dict[str, str] = {}
        for bucket, keys in _by_bucket(paths).items():
            for start in range(0, len(keys), BATCH):
                objects = [{"Key": key} for key in keys[start : start + BATCH]]
                with _translated(f"deleting {len(objects)} objects of {bucket}"):
                    reply = self._client.delete_objects(Bucket=bucket, Delete={"Objects": objects, "Quiet": True})
                failed.update(
                    {f"s3://{bucket}/{entry['Key']}": str(entry.get("Code", "")) for entry in reply.get("Errors", ())}
                )
        return failed

    def read_text(self, path: str) -> str | None:
        """An object's text; None when there is none."""
        bucket, key = split(path)
        with _translated(f"reading {path}"):
            try:
                reply = self._client.get_object(Bucket=bucket, Key=key)
            except self._client.exceptions.NoSuchKey:
                return None
            return reply["Body"].read().decode()

    def write_text(self, path: str, text: str) -> None:
        """Write an object, in place of what was there."""
        bucket, key = split(path)
        with _translated(f"writing {path}"):
            self._client.put_object(Bucket=bucket, Key=key, Body=text.encode())


def split(uri: str) -> tuple[str, str]:
    """`s3://bucket/a/b/` → `bucket`, `a/b`. TerminalError without a prefix: a whole bucket is nobody's own."""
    scheme, _, rest = uri.partition("://")
    bucket, _, prefix = rest.partition("/")
    prefix = prefix.rstrip("/")
    if not scheme or not bucket or not prefix:
        raise TerminalError(f"{uri!r} names no place within a bucket; give the tenant a storage prefix of its own")
    return bucket, prefix


def _by_bucket(paths: Sequence[str]) -> dict[str, list[str]]:
    keys: dict[str, list[str]] = {}
    for path in paths:
        bucket, key = split(path)
        keys.setdefault(bucket, []).append(key)
    return keys


@contextmanager
def _translated(doing: str) -> Generator[None]:
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - see ObjectStore

    try:
        yield
    except ClientError as error:
        answer: Any = error.response
        status = int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 500))
        if 400 <= status < 500 and status not in (408, 429):
            raise TerminalError(f"{doing}: the store refused ({describe(error)}); check the lakehouse's key") from None
        raise TransientError(f"{doing}: {describe(error)}; try again") from None
    except BotoCoreError as error:
        raise TransientError(f"{doing}: {describe(error)}; try again") from None
