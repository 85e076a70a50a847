"""A stand-in for a Docker daemon. It runs images as folders and containers as processes of this machine."""

import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

INHERITED = ("PIP_", "UV_", "SSL_", "REQUESTS_", "HTTP", "http", "NO_PROXY", "no_proxy")
"""What a build needs of this machine to reach the package index."""
IMAGE = "sha256:0123456789ab"
STEP = re.compile(r"^([A-Z]+) (.*)$")


@dataclass
class Image:
    """An image in a folder. Its absolute paths are paths in this folder.

    What a Dockerfile does as root, before its `USER`, is not done: it only prepares the machine.
    """

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    working_directory: str = "/"

    def locate(self, text: str) -> str:
        """Return the text with the image's own absolute paths in the folder."""
        return re.sub(r"(?<![\w/.-])/(app|films)\b", lambda path: f"{self.folder}{path.group()}", text)

    def build(self, context: bytes, dockerfile: str) -> None:
        """Follow the steps of a Dockerfile in this build context."""
        sources = self.folder / "context"
        with tarfile.open(fileobj=io.BytesIO(context)) as tar:
            tar.extractall(sources, filter="data")
        is_root = True
        for step, arguments in _read_steps((sources / dockerfile).read_text(encoding="utf-8")):
            if step == "USER":
                is_root = False
            elif step == "WORKDIR":
                self.working_directory = arguments
                Path(self.locate(arguments)).mkdir(parents=True)
            elif step == "COPY":
                assert arguments == "--chown=videogen . .", arguments
                subprocess.run(["cp", "-a", f"{sources}/.", self.locate(self.working_directory)], check=True)
            elif step == "ENV":
                for name, value in (part.split("=", 1) for part in shlex.split(arguments)):
                    self.environment[name] = self.locate(value).replace("$PATH", os.environ["PATH"])
            elif step == "RUN" and not is_root:
                self.run(shlex.split(arguments), _inherit(INHERITED) | {"UV_PYTHON": sys.executable})
            else:
                assert step in {"FROM", "RUN", "CMD"}, step

    def start(self, command: list[str], environment: Mapping[str, str], log: Path) -> "subprocess.Popen[bytes]":
        """Start a process as a container would have it, with nothing else of this machine in its environment."""
        home = {"PATH": os.environ["PATH"], "HOME": str(self.folder / "home")}
        whole = home | self.environment | dict(environment)
        with log.open("wb") as output:
            return subprocess.Popen(
                [str(shutil.which(command[0], path=whole["PATH"])), *command[1:]],
                cwd=self.locate(self.working_directory),
                env=whole,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def run(self, command: list[str], environment: Mapping[str, str]) -> None:
        log = self.folder / "build.log"
        assert self.start(command, environment, log).wait(250) == 0, log.read_text(encoding="utf-8")


@dataclass
class Container:
    """A container, as it was asked for."""

    asked: dict[str, Any]
    log: Path
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def environment(self) -> dict[str, str]:
        return dict(entry.split("=", 1) for entry in self.asked["Env"])

    def describe(self) -> dict[str, Any]:
        code = self.process.poll() if self.process else None
        status = "created" if self.process is None else "running" if code is None else "exited"
        state = {"Status": status, "ExitCode": code or 0}
        return {"Id": "c0ffee", "Name": "/flow-run", "State": state, "Config": {"Tty": True}, "Image": IMAGE}


class DockerDaemon(ThreadingHTTPServer):
    """Answers what Prefect asks of Docker: build, tag and push one image, and run containers of it.

    Args:
        network: variables that all containers have in addition, for the services that they reach elsewhere.
    """

    daemon_threads = True

    def __init__(self, folder: Path, network: dict[str, str]) -> None:
        self.image = Image(folder / "image")
        self.tags: list[str] = []
        self.pushed: list[str] = []
        self.containers: list[Container] = []
        self.network = network
        self.folder = folder
        super().__init__(("127.0.0.1", 0), _Call)

    @property
    def url(self) -> str:
        return f"tcp://127.0.0.1:{self.server_address[1]}"


class _Call(BaseHTTPRequestHandler):
    server: DockerDaemon

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def _answer(self) -> None:
        address = urlsplit(self.path)
        path = re.sub(r"^/v[\d.]+", "", address.path)
        query = {name: values[0] for name, values in parse_qs(address.query).items()}
        body = self._read_body()
        status, answer = self._respond(self.command, path, query, body)
        data = answer if isinstance(answer, bytes) else json.dumps(answer).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        with suppress(ConnectionError):
            self.wfile.write(data)

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _respond(self, method: str, path: str, query: dict[str, str], body: bytes) -> tuple[int, Any]:
        daemon = self.server
        if path == "/version":
            return 200, {"Version": "28.0.0", "ApiVersion": "1.48", "MinAPIVersion": "1.24"}
        if path == "/build":
            if not daemon.tags:  # later builds are answered from the cache
                daemon.image.build(body, query["dockerfile"])
            return 200, {"aux": {"ID": IMAGE}}
        if path.startswith("/images/"):
            if path.endswith("/tag"):
                daemon.tags.append(f"{query['repo']}:{query['tag']}")
            elif path.endswith("/push"):
                daemon.pushed.append(f"{path.removeprefix('/images/').removesuffix('/push')}:{query['tag']}")
            return 200, {"Id": IMAGE, "RepoTags": daemon.tags, "Config": {}}
        if path == "/containers/create":
            log = daemon.folder / f"container-{len(daemon.containers)}.log"
            daemon.containers.append(Container(json.loads(body), log))
            return 201, {"Id": "c0ffee", "Warnings": []}
        assert path.startswith("/containers/c0ffee"), (method, path)
        return 200, self._serve_container(path.removeprefix("/containers/c0ffee"), query)

    def _serve_container(self, path: str, query: dict[str, str]) -> Any:
        container = self.server.containers[-1]
        if path == "/start":
            environment = {**container.environment, **self.server.network}
            container.process = self.server.image.start(container.asked["Cmd"], environment, container.log)
        elif path in {"/logs", "/wait"} and container.process:
            container.process.wait()
            return container.log.read_bytes() if path == "/logs" else {"StatusCode": container.process.returncode}
        return container.describe()


@contextmanager
def docker_daemon(folder: Path, network: dict[str, str]) -> Iterator[DockerDaemon]:
    """Run a stand-in for a Docker daemon until the end of the block."""
    with DockerDaemon(folder, network) as daemon:
        serving = threading.Thread(target=daemon.serve_forever, args=(0.05,))
        serving.start()
        try:
            yield daemon
        finally:
            daemon.shutdown()
            serving.join()
            for container in daemon.containers:
                if container.process and container.process.poll() is None:
                    os.killpg(container.process.pid, signal.SIGKILL)
                    container.process.wait()


def _read_steps(dockerfile: str) -> list[tuple[str, str]]:
    lines = re.sub(r"\\\n\s*", "", dockerfile).splitlines()
    return [(match[1], match[2]) for match in map(STEP.match, lines) if match]


def _inherit(prefixes: tuple[str, ...]) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith(prefixes)}
