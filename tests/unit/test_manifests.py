"""What starts the app's image elsewhere: Kubernetes takes the manifests as they are, and compose.yaml keeps the same promises."""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import kubernetes_validate
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
APP = ROOT / "app"
MANIFESTS = list(yaml.safe_load_all((APP / "deploy" / "kubernetes.yaml").read_text(encoding="utf-8")))
ROUTE = yaml.safe_load((APP / "deploy" / "httproute.yaml").read_text(encoding="utf-8"))
COMPOSE = yaml.safe_load((APP / "compose.yaml").read_text(encoding="utf-8"))
OLDEST = 31
VERSIONS = [f"1.{minor}" for minor in range(OLDEST, int(kubernetes_validate.latest_version().split(".")[1]) + 1)]


def manifest(kind: str, manifests: list[dict[str, Any]] = MANIFESTS) -> dict[str, Any]:
    """Return the manifest of a kind: the one that does something, where there are two."""
    (found,) = [each for each in manifests if each["kind"] == kind and not each["metadata"]["name"].endswith("-closed")]
    return dict(found)


def container() -> dict[str, Any]:
    (found,) = manifest("Deployment")["spec"]["template"]["spec"]["containers"]
    return dict(found)


# Gateway API's types as checks, made from its published schema. Nothing in Python or Debian has that.
GATEWAY_API = "@kubernetes-models/gateway-api@2.0.0"
CHECK = """
import {HTTPRoute} from "@kubernetes-models/gateway-api/gateway.networking.k8s.io/v1/HTTPRoute";
new HTTPRoute(JSON.parse(process.argv[2])).validate();
"""

# What the schema drops silently where it does not know it: its fields, as far as these manifests use them.
FIELDS: dict[str, Any] = {
    "apiVersion": None,
    "kind": None,
    "metadata": {"name": None, "labels": {"app.kubernetes.io/name": None}},
    "spec": {
        "parentRefs": [{"name": None, "namespace": None}],
        "hostnames": [None],
        "rules": [{"matches": [{"path": {"type": None, "value": None}}], "backendRefs": [{"name": None, "port": None}]}],
    },
}


@pytest.fixture(scope="session")
def gateway_api(tmp_path_factory: pytest.TempPathFactory, lacking: Callable[[str], NoReturn]) -> Callable[[dict[str, Any]], str]:
    """Judge an HTTPRoute by Gateway API's schema; return what is wrong with it."""
    directory = tmp_path_factory.mktemp("gateway-api")
    npm = shutil.which("npm")
    command = [npm or "npm", "install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", GATEWAY_API]
    if not npm or subprocess.run(command, cwd=directory, capture_output=True, check=False).returncode:
        lacking("without npm and its registry the schema of Gateway API is not to be had")
    (directory / "check.mjs").write_text(CHECK, encoding="utf-8")

    def judge(route: dict[str, Any]) -> str:
        command = ["node", "check.mjs", json.dumps(route)]
        return subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False).stderr

    return judge


def unknown(found: Any, known: Any) -> list[str]:
    """Return the fields that Gateway API does not have."""
    if isinstance(found, list):
        return [each for entry in found for each in unknown(entry, known[0])]
    if isinstance(found, dict):
        deeper = [f"{key}.{each}" for key in found if key in known for each in unknown(found[key], known[key])]
        return [key for key in found if key not in known] + deeper
    return []


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("document", MANIFESTS, ids=lambda document: f"{document['kind']} {document['metadata']['name']}")
def test_kubernetes_takes_each_manifest(document: dict[str, Any], version: str) -> None:
    kubernetes_validate.validate(document, version, strict=True)


def closed(route: dict[str, Any]) -> set[str]:
    """Return the paths of an HTTPRoute that lead to nobody."""
    rules = [rule for rule in route["spec"]["rules"] if rule["backendRefs"][0]["name"].endswith("-closed")]
    paths = [match["path"] for rule in rules for match in rule["matches"]]
    assert {path["type"] for path in paths} == {"PathPrefix"}
    return {path["value"] for path in paths}


def test_a_gateway_takes_the_route_to_the_app(gateway_api: Callable[[dict[str, Any]], str]) -> None:
    assert (gateway_api(ROUTE), unknown(ROUTE, FIELDS)) == ("", [])
    wrong = copy.deepcopy(ROUTE)
    wrong["spec"]["rules"][1]["matches"][0]["path"]["type"] = "Prefix"
    assert "/spec/rules/1/matches/0/path/type" in gateway_api(wrong)


def test_the_route_of_a_gateway_leads_where_the_ingress_does() -> None:
    rules = manifest("Ingress")["spec"]["rules"]
    assert ROUTE["spec"]["hostnames"] == [rule["host"] for rule in rules]
    assert closed(ROUTE) == {path["path"] for path in rules[0]["http"]["paths"]} - {"/"} == {"/metrics", "/.slipway"}
    (rest,) = [rule for rule in ROUTE["spec"]["rules"] if "matches" not in rule]
    services = {each["metadata"]["name"]: each["spec"]["ports"][0]["port"] for each in MANIFESTS if each["kind"] == "Service"}
    assert rest["backendRefs"] == [{"name": "slipway-example", "port": services["slipway-example"]}]
    assert all(each["port"] == services[each["name"]] for rule in ROUTE["spec"]["rules"] for each in rule["backendRefs"])


def test_nothing_is_said_to_a_controller_that_is_retired() -> None:
    for file in (APP / "deploy" / "kubernetes.yaml", ROOT / "playbooks" / "templates" / "kubernetes.yaml.j2"):
        assert "nginx.ingress.kubernetes.io" not in file.read_text(encoding="utf-8")


def test_a_misspelt_field_would_be_found() -> None:
    document = yaml.safe_load(yaml.safe_dump(manifest("Deployment")))
    document["spec"]["template"]["spec"]["containers"][0]["readinessProb"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(document, VERSIONS[-1], strict=True)


def test_the_manifests_are_of_one_app() -> None:
    labels = manifest("Deployment")["spec"]["template"]["metadata"]["labels"]
    assert [each["kind"] for each in MANIFESTS] == [
        "Deployment",
        "Service",
        "Ingress",
        "Service",
        "PodDisruptionBudget",
        "HorizontalPodAutoscaler",
    ]
    for kind in ("Deployment", "PodDisruptionBudget"):
        assert manifest(kind)["spec"]["selector"]["matchLabels"] == labels
    assert manifest("Service")["spec"]["selector"] == labels
    names = {port["name"]: port["containerPort"] for port in container()["ports"]}
    assert names["http"] == 8000
    assert manifest("Service")["spec"]["ports"][0]["targetPort"] == "http"
    assert manifest("HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]["name"] == manifest("Deployment")["metadata"]["name"]
    backend = manifest("Ingress")["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]
    assert backend["name"] == manifest("Service")["metadata"]["name"]


def test_a_pod_is_given_time_to_finish() -> None:
    graceful = re.search(r'"--timeout-graceful-shutdown", "(\d+)"', (APP / "Dockerfile").read_text(encoding="utf-8"))
    assert graceful is not None
    pod = manifest("Deployment")["spec"]["template"]["spec"]
    pause = int(container()["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pause + int(graceful[1]) < pod["terminationGracePeriodSeconds"]
    assert int(graceful[1]) < int(COMPOSE["services"]["app"]["stop_grace_period"].removesuffix("s"))


def test_neither_may_do_more_than_serve() -> None:
    pod = manifest("Deployment")["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert f"USER {pod['securityContext']['runAsUser']}:" in (APP / "Dockerfile").read_text(encoding="utf-8")
    rights = container()["securityContext"]
    assert (rights["readOnlyRootFilesystem"], rights["allowPrivilegeEscalation"]) == (True, False)
    assert rights["capabilities"] == {"drop": ["ALL"]}
    assert container()["resources"]["limits"]["memory"]
    app = COMPOSE["services"]["app"]
    assert (app["read_only"], app["cap_drop"], app["security_opt"]) == (True, ["ALL"], ["no-new-privileges:true"])
    assert "ports" not in app, "only the proxy is reached from outside"


def test_no_secret_is_in_the_files() -> None:
    environment = COMPOSE["services"]["app"]["environment"]
    assert environment["SECRET_KEY"].startswith("${SECRET_KEY:?")
    assert {each["name"] for each in container()["env"]} == {"ENVIRONMENT"}
    assert [each["secretRef"]["name"] for each in container()["envFrom"]] == ["slipway-example"]


def test_images_are_of_versions_that_are_looked_after() -> None:
    """The oldest that get fixes: none of these is there for good."""
    images = dict(service["image"].rsplit(":", 1) for name, service in COMPOSE["services"].items() if name != "app")
    oldest = {"traefik": (3, 7), "prometheus": (3, 13), "grafana": (13, 2)}
    found = {name.rpartition("/")[2]: tuple(map(int, re.findall(r"\d+", tag)[:2])) for name, tag in images.items()}
    assert found.keys() == oldest.keys()
    assert [name for name, version in found.items() if version < oldest[name]] == []


def test_images_are_of_a_version() -> None:
    images = [service["image"] for name, service in COMPOSE["services"].items() if name != "app"]
    assert [image for image in images if not re.search(r":v?\d+\.\d+", image)] == []
    assert re.search(r"^ARG BASE=\S+:3\.\d+-slim$", (APP / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)


def test_what_is_counted_is_not_for_the_public() -> None:
    paths = {
        path["path"]: path["backend"]["service"]["name"] for path in manifest("Ingress")["spec"]["rules"][0]["http"]["paths"]
    }
    assert paths == {
        "/": "slipway-example",
        "/metrics": "slipway-example-closed",
        "/.slipway": "slipway-example-closed",
    }
    (nobody,) = [each for each in MANIFESTS if each["metadata"]["name"] == "slipway-example-closed"]
    assert "selector" not in nobody["spec"], "it leads to nobody"
    annotations = manifest("Deployment")["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(container()["ports"][0]["containerPort"])
    rule = COMPOSE["services"]["app"]["labels"]["traefik.http.routers.app.rule"]
    assert "!PathPrefix(`/metrics`) && !PathPrefix(`/.slipway`)" in rule


# What playbooks/kubernetes.yml makes of an inventory

PLAYBOOK: list[str | Path] = [Path(sys.executable).with_name("ansible-playbook"), "playbooks/kubernetes.yml"]


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., tuple[str, list[dict[str, Any]]]]:
    """Run the playbook for one host, and return what it prints and the manifests."""

    def run(image: str = "ghcr.io/you/shop:1.4", gateway: str = "", **variables: Any) -> tuple[str, list[dict[str, Any]]]:
        inventory = {"web": {"hosts": {"api.example.com": {"app_image": image, **variables}}}}
        (tmp_path / "hosts.yml").write_text(json.dumps(inventory), encoding="utf-8")
        extra = {"kubernetes_directory": str(tmp_path / "out"), "kubernetes_gateway": gateway}
        done = subprocess.run(
            [*PLAYBOOK, "-vv", f"--inventory={tmp_path / 'hosts.yml'}", f"--extra-vars={json.dumps(extra)}"],
            cwd=ROOT,
            env={**os.environ, "ANSIBLE_NOCOLOR": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        file = tmp_path / "out" / "api.example.com.kubernetes.yaml"
        if not file.exists():
            return done.stdout, []
        assert done.returncode == 0, done.stdout
        assert file.stat().st_mode & 0o777 == 0o600
        return done.stdout, list(yaml.safe_load_all(file.read_text(encoding="utf-8")))

    return run


def test_an_inventorys_app_is_served_as_the_example_is(write: Callable[..., tuple[str, list[dict[str, Any]]]]) -> None:
    settings = {
        "app_env": {"MOTD": 'it\'s: "yes"\n#'},
        "app_secrets": {"SECRET_KEY": "canary-of-a-secret"},
    }
    names = {
        "app_name": "slipway-example",
        "app_container_memory_mb": 512,
        "nginx_domains": ["api.example.com", "www.example.com"],
        "app_health_headers": {"X-Probe": 1},
    }
    said, found = write("localhost/slipway-example:latest", **settings, **names)
    for version in (VERSIONS[0], VERSIONS[-1]):
        for document in found:
            kubernetes_validate.validate(document, version, strict=True)
    assert "canary" not in said
    assert manifest("ConfigMap", found)["data"] == settings["app_env"]
    assert manifest("Secret", found)["stringData"] == settings["app_secrets"]
    name = manifest("Secret", found)["metadata"]["name"]
    assert name == manifest("ConfigMap", found)["metadata"]["name"]
    made, example = (copy.deepcopy(manifest("Deployment", documents)) for documents in (found, MANIFESTS))
    (ours,) = made["spec"]["template"]["spec"]["containers"]
    assert {each["name"]: each["value"] for each in ours["env"]} == {
        "RELEASE_ID": "latest",
        "UVICORN_HEADERS": "X-Release:latest",
    }
    assert ours["envFrom"] == [{"configMapRef": {"name": name}}, {"secretRef": {"name": name}}]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        headers = [{"name": "Host", "value": "api.example.com"}, {"name": "X-Probe", "value": "1"}]
        assert ours[probe]["httpGet"].pop("httpHeaders") == headers
    for deployment in (made, example):
        for key in ("env", "envFrom"):
            del deployment["spec"]["template"]["spec"]["containers"][0][key]
    assert made == example
    assert manifest("Service", found) == manifest("Service")
    assert manifest("PodDisruptionBudget", found) == manifest("PodDisruptionBudget")
    ingress = manifest("Ingress", found)
    assert ingress["metadata"] == manifest("Ingress")["metadata"]
    assert [rule["host"] for rule in ingress["spec"]["rules"]] == names["nginx_domains"]
    for rule in ingress["spec"]["rules"]:
        assert rule["http"] == manifest("Ingress")["spec"]["rules"][0]["http"]


def test_a_gateway_instead_of_an_ingress(
    write: Callable[..., tuple[str, list[dict[str, Any]]]], gateway_api: Callable[[dict[str, Any]], str]
) -> None:
    domains = [f"a{number}.example.com" for number in range(20)]
    _, found = write(gateway="infra/public", nginx_domains=domains, nginx_closed_paths=["/internal"])
    assert "Ingress" not in {each["kind"] for each in found}
    routes = [each for each in found if each["kind"] == "HTTPRoute"]
    assert [each for each in routes if gateway_api(each) or unknown(each, FIELDS)] == []
    assert [name for route in routes for name in route["spec"]["hostnames"]] == domains
    assert len({route["metadata"]["name"] for route in routes}) == 2, "a route has 16 names at most"
    for route in routes:
        assert route["spec"]["parentRefs"] == [{"name": "public", "namespace": "infra"}]
        assert closed(route) == {"/internal", "/.slipway"}


def test_a_changed_setting_is_another_release(write: Callable[..., tuple[str, list[dict[str, Any]]]]) -> None:
    changes: list[dict[str, Any]] = [{}, {"app_env": {"A": "1"}}, {"app_secrets": {"A": "1"}}]
    names = {manifest("Secret", write(app_name="my_shop", **change)[1])["metadata"]["name"] for change in changes}
    assert len(names) == 3
    assert all(name.startswith("my-shop-") for name in names), "Kubernetes has no '_' in names"


def test_what_has_no_image_is_refused(write: Callable[..., tuple[str, list[dict[str, Any]]]]) -> None:
    said, found = write("")
    assert "api.example.com has no app_image" in said
    assert found == []
