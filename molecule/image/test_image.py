"""The app as an image: built from its lock file, run without any right, and run as Kubernetes and Compose would run it."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import socket
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from molecule.conftest import ROOT, within

APP = ROOT / "app"
IMAGE = "localhost/slipway-example:latest"
SECRET = "a-secret-of-the-test"


def podman(*arguments: str, text: str | None = None) -> str:
    done = subprocess.run(["podman", *arguments], input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"podman {' '.join(arguments)}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout.strip()


def ask(address: str, path: str) -> Any:
    """Return the JSON that the app answers; None while it does not."""
    try:
        with urllib.request.urlopen(f"http://{address}:8000{path}", timeout=10) as answer:
            return json.load(answer)
    except (OSError, urllib.error.URLError):
        return None


def address(container: str) -> str:
    networks = json.loads(podman("inspect", container))[0]["NetworkSettings"]["Networks"]
    return str(next(iter(networks.values()))["IPAddress"])


@pytest.fixture(scope="module", autouse=True)
def image() -> Iterator[str]:
    """The image, built on the public Python or, where no registry answers, on Debian's."""
    base = subprocess.run([ROOT / "script" / "image", "python"], capture_output=True, text=True, check=True)
    reference = base.stdout.split()[-1]
    # In the OCI's own format there are no health checks.
    podman(
        "build",
        "--quiet",
        "--format=docker",
        f"--build-arg=BASE={reference}",
        "--build-arg=RELEASE_ID=7",
        "--build-arg=RELEASE_REVISION=abc123",
        f"--tag={IMAGE}",
        str(APP),
    )
    yield IMAGE
    podman("rmi", "--force", IMAGE)


@pytest.fixture
def container(image: str) -> Iterator[str]:
    """The app, as its image starts it, with nothing but its settings, and nothing that it may write to."""
    settings = ["--env=ENVIRONMENT=production", f"--env=SECRET_KEY={SECRET}"]
    rights = ["--read-only", "--cap-drop=all", "--security-opt=no-new-privileges"]
    name = podman("run", "--detach", *settings, *rights, image)
    within(90, lambda: ask(address(name), "/healthz"))
    yield name
    podman("rm", "--force", "--time=0", name)


def test_it_serves_without_any_right(container: str) -> None:
    where = address(container)
    assert ask(where, "/") == {"message": "Hello, World!"}
    version = ask(where, "/version")
    assert (version["release"], version["revision"]) == ("7", "abc123")
    with urllib.request.urlopen(f"http://{where}:8000/healthz", timeout=10) as answer:
        assert answer.headers["X-Release"] == "7"
    status = podman("exec", container, "cat", "/proc/1/status")
    found = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert found["Uid"].split() == ["10001"] * 4
    assert int(found["CapEff"], 16) == int(found["CapBnd"], 16) == 0
    assert found["NoNewPrivs"] == "1"
    with pytest.raises(AssertionError, match="Read-only"):
        podman("exec", container, "touch", "/srv/app/x")
    podman("healthcheck", "run", container)


def test_it_stops_when_it_is_asked_to(container: str) -> None:
    podman("stop", "--time=10", container)
    state = json.loads(podman("inspect", container))[0]["State"]
    # To the first process of a container a signal that nobody handles any more does nothing.
    assert state["ExitCode"] == 0
    logs = subprocess.run(["podman", "logs", container], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True)
    assert "has stopped" in logs.stdout


def test_nothing_is_in_it_that_does_not_belong_there(image: str) -> None:
    files = podman("run", "--rm", image, "find", "/srv", "-maxdepth", "2", "-not", "-path", "/srv/venv/*").splitlines()
    assert {"/srv/app/main.py", "/srv/requirements.txt"} <= set(files)
    assert [path for path in files if any(part in path for part in (".env", "tests", "compose", "Dockerfile", "deploy"))] == []
    assert "ENVIRONMENT" not in podman("inspect", "--format={{.Config.Env}}", image)


def test_a_bad_setting_keeps_it_from_starting(image: str) -> None:
    done = subprocess.run(
        ["podman", "run", "--rm", "--env=ENVIRONMENT=production", "--env=SECRET_KEY=short", image],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode != 0
    assert "SECRET_KEY must have at least 16 characters" in done.stdout + done.stderr


@pytest.fixture
def manifests(tmp_path: Path) -> dict[str, dict[str, Any]]:
    """What playbooks/kubernetes.yml writes for the app, by its kind."""
    host = {"app_name": "slipway-example", "app_image": IMAGE, "app_env": {"ENVIRONMENT": "production"}}
    inventory = {"web": {"hosts": {"api.example.com": {**host, "app_secrets": {"SECRET_KEY": SECRET}}}}}
    (tmp_path / "hosts.yml").write_text(json.dumps(inventory), encoding="utf-8")
    told = {"kubernetes_directory": str(tmp_path), "kubernetes_release": "8", "kubernetes_replicas": 1}
    ansible = str(ROOT / ".venv" / "bin" / "ansible-playbook")
    options = [f"--inventory={tmp_path / 'hosts.yml'}", f"--extra-vars={json.dumps(told)}"]
    subprocess.run([ansible, "playbooks/kubernetes.yml", *options], cwd=ROOT, check=True)
    text = (tmp_path / "api.example.com.kubernetes.yaml").read_text(encoding="utf-8")
    documents = {each["kind"]: each for each in yaml.safe_load_all(text) if not each["metadata"]["name"].endswith("-closed")}
    return {kind: documents[kind] for kind in ("ConfigMap", "Secret", "Deployment")}


def test_the_pod_of_the_manifests_runs(manifests: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    """One pod of it: here two would want the same port of the machine."""
    secret = manifests.pop("Secret")
    name = secret["metadata"]["name"]
    file = tmp_path / "pod.yaml"
    file.write_text(yaml.safe_dump_all(manifests.values()), encoding="utf-8")
    data = {key: base64.b64encode(value.encode()).decode() for key, value in secret.pop("stringData").items()}
    old = tuple(map(int, podman("version", "--format={{.Client.Version}}").split(".")[:2])) < (4, 4)
    podman("secret", "create", name, "-", text=json.dumps(data if old else {**secret, "data": data}))
    try:
        podman("kube", "play", str(file))
        (pod,) = json.loads(podman("pod", "ps", "--format=json", "--filter=name=slipway-example"))
        within(90, lambda: ask(address(pod["InfraId"]), "/healthz"))
        assert ask(address(pod["InfraId"]), "/version")["release"] == "8", "the manifest names the release, not the image"
        assert ask(address(pod["InfraId"]), "/") == {"message": "Hello, World!"}
    finally:
        podman("pod", "rm", "--force", "--time=0", *podman("pod", "ps", "--quiet", "--filter=name=slipway-example").split())
        podman("secret", "rm", name)
        podman("volume", "rm", "--force", "scratch")


COMPOSE = [str(ROOT / ".venv" / "bin" / "podman-compose"), "--project-name=slipway-image-test", f"--file={APP / 'compose.yaml'}"]
NETWORK = "slipway-image-test_default"
DOMAIN = "api.lab.test"

# What only the test adds: a name that the authority finds the proxy by, and trust in that authority.
OVERRIDE = f"""
services:
  proxy:
    environment: {{LEGO_CA_CERTIFICATES: /authority.pem}}
    volumes: ["FOLDER/own.pem:/authority.pem:ro"]
    networks: {{default: {{aliases: [{DOMAIN}]}}}}
"""


def image_of(name: str) -> str:
    return subprocess.run([ROOT / "script" / "image", name], capture_output=True, text=True, check=True).stdout.split()[-1]


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Path]:
    """A socket at which podman answers as Docker does."""
    socket_path = tmp_path / "engine.sock"
    service = subprocess.Popen(["podman", "system", "service", "--time=0", f"unix://{socket_path}"])
    within(60, socket_path.exists)
    yield socket_path
    service.terminate()
    service.wait(timeout=60)


@contextlib.contextmanager
def authority(folder: Path) -> Iterator[None]:
    """Have an ACME server on the network of the project; in the folder are its own certificate's CA, and the CA that it is."""
    name = podman(
        "run", "--detach", "--systemd=always", "--cap-add=SYS_ADMIN", f"--network={NETWORK}:alias=acme.lab.test", image_of("acme")
    )
    (folder / "own.pem").write_text(podman("exec", name, "cat", "/etc/pebble/ca.pem") + "\n", encoding="ascii")

    def root() -> str:
        with contextlib.suppress(OSError):
            request = f"https://{address(name)}:15000/roots/0"
            with urllib.request.urlopen(request, context=ssl._create_unverified_context(), timeout=10) as answer:
                return str(answer.read().decode("ascii"))
        return ""

    within(120, root)
    (folder / "root.pem").write_text(root(), encoding="ascii")
    try:
        yield
    finally:
        podman("rm", "--force", "--time=0", "--volumes", name)


def test_compose_serves_behind_traefik_with_a_certificate(engine: Path, tmp_path: Path) -> None:
    """Prometheus and Grafana need a registry; what they are told is checked by test_manifests."""
    (tmp_path / "override.yaml").write_text(OVERRIDE.replace("FOLDER", str(tmp_path)), encoding="utf-8")
    compose = [*COMPOSE, f"--file={tmp_path / 'override.yaml'}"]
    environment = {
        "DOMAIN": DOMAIN,
        "EMAIL": "ops@lab.test",
        "SECRET_KEY": SECRET,
        "ACME_SERVER": "https://acme.lab.test:14000/dir",
        "CONTAINER_SOCKET": str(engine),
        "HTTP_PORT": "127.0.0.1:8081",
        "HTTPS_PORT": "127.0.0.1:8444",
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    }

    def run(*arguments: str) -> None:
        done = subprocess.run([*compose, *arguments], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]

    proxy = yaml.safe_load((APP / "compose.yaml").read_text(encoding="utf-8"))["services"]["proxy"]["image"]
    podman("tag", image_of("traefik"), proxy)
    try:
        run("up", "--no-build", "--detach", "app")
        (name,) = podman("ps", "--quiet", "--filter=name=slipway-image-test_app").splitlines()
        within(90, lambda: ask(address(name), "/healthz"))
        assert json.loads(podman("inspect", name))[0]["HostConfig"]["ReadonlyRootfs"] is True
        with authority(tmp_path):
            run("up", "--no-build", "--detach", "proxy")
            trust = ssl.create_default_context(cafile=tmp_path / "root.pem")

            def front(path: str, tls: bool = True) -> http.client.HTTPResponse:
                connection = http.client.HTTPConnection("127.0.0.1", 8444 if tls else 8081, timeout=20)
                if tls:
                    raw = socket.create_connection(("127.0.0.1", 8444), timeout=20)
                    connection.sock = trust.wrap_socket(raw, server_hostname=DOMAIN)
                connection.request("GET", path, headers={"Host": DOMAIN})
                return connection.getresponse()

            def served() -> bool:
                with contextlib.suppress(OSError, http.client.HTTPException):
                    return front("/").status == 200
                return False

            # Traefik leaves out what is not healthy yet, and podman's own timer for that is systemd's, which may not be here.
            podman("healthcheck", "run", name)
            within(120, served, pause=0.5)
            assert json.load(front("/")) == {"message": "Hello, World!"}
            assert json.load(front("/whoami"))["scheme"] == "https"
            assert front("/metrics").status == 404, "it is for Prometheus, which asks the app itself"
            answer = front("/items/5", tls=False)
            assert (answer.status, answer.headers["Location"]) == (301, f"https://{DOMAIN}/items/5")
    finally:
        run("down", "--volumes")
        podman("untag", proxy)
