"""What one person pushes, another pulls whole: through a folder and through a real S3 server on this machine. Damage is named."""

import json
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import botocore.session
import pytest
from botocore.exceptions import BotoCoreError, ClientError

from tests.conftest import Project, TinyProject, read_json

pytestmark = pytest.mark.slow
KEY, SECRET, BUCKET, REGION = "xledit-tests", "not-a-secret", "xledit", "us-east-1"


@dataclass(frozen=True)
class Remote:
    """Where DVC stores, its options, and the environment that holds the keys."""

    url: str
    options: dict[str, str]
    env: dict[str, str]

    def add_to(self, project: Project) -> Project:
        """Return the project with this as its default remote, as .dvc/config says to add one."""
        project = replace(project, env=project.env | self.env)
        project.dvc("remote", "add", "--local", "--default", "storage", self.url)
        for name, value in self.options.items() | {("verify", "true")}:
            project.dvc("remote", "modify", "--local", "storage", name, value)
        return project


def free_ports(count: int) -> list[str]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [str(one.getsockname()[1]) for one in sockets]


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Remote]:
    """An S3 server with one bucket, on loopback only."""
    folder = tmp_path_factory.mktemp("s3")
    names = [f"-{service}.port{kind}" for service in ("master", "volume", "filer", "s3") for kind in ("", ".grpc")]
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    identity = {"name": "tests", "credentials": [{"accessKey": KEY, "secretKey": SECRET}], "actions": ["Admin", "Read", "Write", "List"]}
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}), encoding="utf-8")
    options = [
        "-dir=.",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-filer",
        "-s3",
        "-s3.config=s3.json",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
    ]
    options += [
        "-master.telemetry=false",
        "-master.volumeSizeLimitMB=64",
        "-volume.max=20",
        *(f"{name}={port}" for name, port in ports.items()),
    ]
    with (folder / "log").open("w") as log, subprocess.Popen(["weed", "server", *options], cwd=folder, stdout=log, stderr=log) as server:
        try:
            url = f"http://127.0.0.1:{ports['-s3.port']}"
            make_bucket(url, server, folder / "log")
            keys = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_DEFAULT_REGION": REGION}
            yield Remote(f"s3://{BUCKET}/store", {"endpointurl": url}, keys)
        finally:
            server.kill()  # it takes ten seconds to end when asked politely


def make_bucket(url: str, server: subprocess.Popen, log: Path) -> None:
    """Create the bucket as soon as the server answers."""
    client = botocore.session.Session().create_client(
        "s3", region_name=REGION, endpoint_url=url, aws_access_key_id=KEY, aws_secret_access_key=SECRET
    )
    deadline = time.monotonic() + 60
    while True:
        try:
            client.create_bucket(Bucket=BUCKET)
            return
        except (BotoCoreError, ClientError) as error:
            if server.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"no S3 server: {error}\n{log.read_text()[-3000:]}")
            time.sleep(0.2)
        finally:
            client.close()


@pytest.fixture
def folder_remote(tmp_path: Path) -> Remote:
    return Remote(str(tmp_path / "store"), {}, {})


@pytest.fixture(params=["folder", "s3"])
def remote(request: pytest.FixtureRequest) -> Remote:
    return request.getfixturevalue("folder_remote" if request.param == "folder" else "s3")


def test_what_one_pushes_another_pulls_whole(tiny_project: TinyProject, remote: Remote, tmp_path: Path) -> None:
    remote.add_to(tiny_project.copy(tmp_path / "first")).dvc("push")
    second = remote.add_to(tiny_project.clone(tmp_path / "second"))
    second.dvc("pull")
    assert "up to date" in second.dvc("status")
    assert "up to date" in second.dvc("repro")
    assert second.run("git", "status", "--porcelain").stdout == ""
    number = sum(len(stage["outs"]) for stage in second.lock().values())
    assert f"{number} good, 0 damaged" in second.run("python", "-m", "tools.verify", "--strict").stdout
    assert read_json(second.root / "reports/metrics.json").keys() == {"memit", "ft_m", "ike"}
    assert (second.root / "reports/index.html").read_bytes() == (tiny_project.root / "reports/index.html").read_bytes()


def test_a_damaged_object_of_the_remote_is_named_and_not_placed(tiny_project: TinyProject, folder_remote: Remote, tmp_path: Path) -> None:
    folder_remote.add_to(tiny_project.copy(tmp_path / "first")).dvc("push")
    path = "artifacts/vectors/zh.safetensors"
    md5 = next(out["md5"] for out in tiny_project.lock()["vectors@zh"]["outs"] if out["path"] == path)
    stored = Path(folder_remote.url) / "files" / "md5" / md5[:2] / md5[2:]
    content = bytearray(stored.read_bytes())
    content[len(content) // 2] ^= 1
    stored.chmod(0o644)
    stored.write_bytes(content)
    clone = folder_remote.add_to(tiny_project.clone(tmp_path / "second"))
    done = clone.run("dvc", "pull", check=False)
    assert done.returncode
    assert path in done.stdout
    assert not (clone.root / path).exists()
