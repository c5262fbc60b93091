"""What starts the app's image elsewhere: what playbooks/kubernetes.yml writes, and compose.yaml with the same promises."""

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
TEMPLATE = ROOT / "playbooks" / "templates" / "kubernetes.yaml.j2"
COMPOSE = yaml.safe_load((APP / "compose.yaml").read_text(encoding="utf-8"))
OLDEST = 31
VERSIONS = [f"1.{minor}" for minor in range(OLDEST, int(kubernetes_validate.latest_version().split(".")[1]) + 1)]
PLAYBOOK: list[str | Path] = [Path(sys.executable).with_name("ansible-playbook"), "playbooks/kubernetes.yml"]

Manifest = dict[str, Any]
Write = Callable[..., tuple[str, list[Manifest]]]

# An inventory's app, with what Kubernetes sees of it.
NAME = "slipway-example"
SECRET = "canary-of-a-secret"
SHOP: dict[str, Any] = {
    "app_name": NAME,
    "app_env": {"MOTD": 'it\'s: "yes"\n#'},
    "app_secrets": {"SECRET_KEY": SECRET},
    "app_container_memory_mb": 512,
    "app_health_headers": {"X-Probe": 1},
    "nginx_domains": ["api.example.com", "www.example.com"],
}


def written(
    directory: Path, image: str = "ghcr.io/you/shop:1.4", extra: dict[str, Any] | None = None, **variables: Any
) -> tuple[str, list[Manifest]]:
    """Run the playbook for one host, and return what it prints and the manifests.

    Args:
        directory: where its inventory is, and what it writes.
        image: what the cluster is to pull.
        extra: what is given with -e.
        variables: those of the host.
    """
    inventory = {"web": {"hosts": {"api.example.com": {"app_image": image, **variables}}}}
    (directory / "hosts.yml").write_text(json.dumps(inventory), encoding="utf-8")
    told = {"kubernetes_directory": str(directory / "out"), **(extra or {})}
    done = subprocess.run(
        [*PLAYBOOK, "-vv", f"--inventory={directory / 'hosts.yml'}", f"--extra-vars={json.dumps(told)}"],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    file = directory / "out" / "api.example.com.kubernetes.yaml"
    if not file.exists():
        return done.stdout, []
    assert done.returncode == 0, done.stdout
    assert file.stat().st_mode & 0o777 == 0o600
    return done.stdout, list(yaml.safe_load_all(file.read_text(encoding="utf-8")))


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Run the playbook for one host, and return what it prints and the manifests."""

    def run(*arguments: Any, **options: Any) -> tuple[str, list[Manifest]]:
        return written(tmp_path, *arguments, **options)

    return run


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[Manifest]]:
    """What is printed and written for the shop."""
    extra = {"kubernetes_max_replicas": 8}
    return written(tmp_path_factory.mktemp("shop"), "localhost/slipway-example:latest", extra, **SHOP)


@pytest.fixture(scope="module")
def manifests(printed: tuple[str, list[Manifest]]) -> list[Manifest]:
    return printed[1]


@pytest.fixture(scope="module")
def routes(tmp_path_factory: pytest.TempPathFactory) -> list[Manifest]:
    """What is written for the shop behind a Gateway."""
    extra = {"kubernetes_gateway": "public"}
    return written(tmp_path_factory.mktemp("gateway"), "localhost/slipway-example:latest", extra, **SHOP)[1]


def manifest(kind: str, manifests: list[Manifest]) -> Manifest:
    """Return the manifest of a kind: the one that does something, where there are two."""
    (found,) = [each for each in manifests if each["kind"] == kind and not each["metadata"]["name"].endswith("-closed")]
    return copy.deepcopy(found)


def container(manifests: list[Manifest]) -> dict[str, Any]:
    (found,) = manifest("Deployment", manifests)["spec"]["template"]["spec"]["containers"]
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


KINDS = ["ConfigMap", "Secret", "Deployment", "Service", "Ingress", "Service", "PodDisruptionBudget", "HorizontalPodAutoscaler"]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("place", range(len(KINDS)), ids=lambda place: f"{place} {KINDS[place]}")
def test_kubernetes_takes_each_manifest(manifests: list[Manifest], place: int, version: str) -> None:
    document = manifests[place]
    assert document["kind"] == KINDS[place]
    kubernetes_validate.validate(document, version, strict=True)


def closed(route: Manifest) -> set[str]:
    """Return the paths of an HTTPRoute that lead to nobody."""
    rules = [rule for rule in route["spec"]["rules"] if rule["backendRefs"][0]["name"].endswith("-closed")]
    paths = [match["path"] for rule in rules for match in rule["matches"]]
    assert {path["type"] for path in paths} == {"PathPrefix"}
    return {path["value"] for path in paths}


def test_a_gateway_takes_the_route_to_the_app(routes: list[Manifest], gateway_api: Callable[[Manifest], str]) -> None:
    route = manifest("HTTPRoute", routes)
    assert (gateway_api(route), unknown(route, FIELDS)) == ("", [])
    route["spec"]["rules"][1]["matches"][0]["path"]["type"] = "Prefix"
    assert "/spec/rules/1/matches/0/path/type" in gateway_api(route)


def test_the_route_of_a_gateway_leads_where_the_ingress_does(manifests: list[Manifest], routes: list[Manifest]) -> None:
    rules, route = manifest("Ingress", manifests)["spec"]["rules"], manifest("HTTPRoute", routes)
    assert route["spec"]["hostnames"] == [rule["host"] for rule in rules]
    assert closed(route) == {path["path"] for path in rules[0]["http"]["paths"]} - {"/"} == {"/metrics", "/.slipway"}
    (rest,) = [rule for rule in route["spec"]["rules"] if "matches" not in rule]
    services = {each["metadata"]["name"]: each["spec"]["ports"][0]["port"] for each in routes if each["kind"] == "Service"}
    assert rest["backendRefs"] == [{"name": NAME, "port": services[NAME]}]
    assert {each["name"]: each["port"] for rule in route["spec"]["rules"] for each in rule["backendRefs"]} == services


def test_nothing_is_said_to_a_controller_that_is_retired() -> None:
    assert "nginx.ingress.kubernetes.io" not in TEMPLATE.read_text(encoding="utf-8")


def test_a_misspelt_field_would_be_found(manifests: list[Manifest]) -> None:
    document = manifest("Deployment", manifests)
    document["spec"]["template"]["spec"]["containers"][0]["readinessProb"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(document, VERSIONS[-1], strict=True)


def test_the_manifests_are_of_one_app(manifests: list[Manifest]) -> None:
    deployment = manifest("Deployment", manifests)
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert [each["kind"] for each in manifests] == KINDS
    for kind in ("Deployment", "PodDisruptionBudget"):
        assert manifest(kind, manifests)["spec"]["selector"]["matchLabels"] == labels
    assert manifest("Service", manifests)["spec"]["selector"] == labels
    assert container(manifests)["ports"] == [{"name": "http", "containerPort": 8000}]
    assert manifest("Service", manifests)["spec"]["ports"][0]["targetPort"] == "http"
    backend = manifest("Ingress", manifests)["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]
    assert backend["name"] == manifest("Service", manifests)["metadata"]["name"]


def test_pods_are_added_as_they_are_busy_where_that_is_asked_for(manifests: list[Manifest], routes: list[Manifest]) -> None:
    scaler = manifest("HorizontalPodAutoscaler", manifests)["spec"]
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (2, 8)
    assert scaler["scaleTargetRef"]["name"] == manifest("Deployment", manifests)["metadata"]["name"]
    assert "replicas" not in manifest("Deployment", manifests)["spec"], "each apply would undo what the autoscaler did"
    assert manifest("Deployment", routes)["spec"]["replicas"] == 2
    assert "HorizontalPodAutoscaler" not in {each["kind"] for each in routes}


def test_a_pod_is_given_time_to_finish(manifests: list[Manifest]) -> None:
    graceful = re.search(r'"--timeout-graceful-shutdown", "(\d+)"', (APP / "Dockerfile").read_text(encoding="utf-8"))
    assert graceful is not None
    pod = manifest("Deployment", manifests)["spec"]["template"]["spec"]
    pause = int(container(manifests)["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pause + int(graceful[1]) < pod["terminationGracePeriodSeconds"]
    assert int(graceful[1]) < int(COMPOSE["services"]["app"]["stop_grace_period"].removesuffix("s"))


def test_neither_may_do_more_than_serve(manifests: list[Manifest]) -> None:
    pod = manifest("Deployment", manifests)["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert f"USER {pod['securityContext']['runAsUser']}:" in (APP / "Dockerfile").read_text(encoding="utf-8")
    rights = container(manifests)["securityContext"]
    assert (rights["readOnlyRootFilesystem"], rights["allowPrivilegeEscalation"]) == (True, False)
    assert rights["capabilities"] == {"drop": ["ALL"]}
    assert container(manifests)["resources"]["limits"] == {"memory": "512Mi"}
    app = COMPOSE["services"]["app"]
    assert (app["read_only"], app["cap_drop"], app["security_opt"]) == (True, ["ALL"], ["no-new-privileges:true"])
    assert "ports" not in app, "only the proxy is reached from outside"


def test_a_new_image_drops_no_request(manifests: list[Manifest]) -> None:
    spec = manifest("Deployment", manifests)["spec"]
    assert spec["strategy"] == {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    assert (spec["minReadySeconds"], spec["progressDeadlineSeconds"], spec["revisionHistoryLimit"]) == (10, 120, 5)
    probes = [container(manifests)[f"{kind}Probe"] for kind in ("startup", "readiness", "liveness")]
    assert [(probe["periodSeconds"], probe.get("failureThreshold")) for probe in probes] == [(1, 60), (5, None), (10, 6)]
    headers = [{"name": "Host", "value": "api.example.com"}, {"name": "X-Probe", "value": "1"}]
    assert [probe["httpGet"] for probe in probes] == [{"path": "/healthz", "port": "http", "httpHeaders": headers}] * 3
    assert manifest("PodDisruptionBudget", manifests)["spec"]["minAvailable"] == 1


def test_settings_and_secrets_reach_the_app_and_nobody_else(printed: tuple[str, list[Manifest]]) -> None:
    said, manifests = printed
    assert SECRET not in said
    config, secret = manifest("ConfigMap", manifests), manifest("Secret", manifests)
    assert (config["data"], secret["stringData"]) == (SHOP["app_env"], SHOP["app_secrets"])
    name = secret["metadata"]["name"]
    assert name == config["metadata"]["name"]
    assert container(manifests)["envFrom"] == [{"configMapRef": {"name": name}}, {"secretRef": {"name": name}}]
    told = {each["name"]: each["value"] for each in container(manifests)["env"]}
    assert told == {"RELEASE_ID": "latest", "UVICORN_HEADERS": "X-Release:latest"}
    assert [each["kind"] for each in manifests if SECRET in str(each)] == ["Secret"]


def test_the_ingress_has_each_name_and_the_limits_of_nginx(manifests: list[Manifest]) -> None:
    ingress = manifest("Ingress", manifests)
    assert [rule["host"] for rule in ingress["spec"]["rules"]] == SHOP["nginx_domains"]
    assert ingress["spec"]["tls"] == [{"hosts": SHOP["nginx_domains"], "secretName": f"{NAME}-tls"}]
    first, second = (rule["http"] for rule in ingress["spec"]["rules"])
    assert first == second
    assert ingress["metadata"]["annotations"] == {
        "cert-manager.io/cluster-issuer": "letsencrypt",
        "nginx.org/client-max-body-size": "10m",
        "nginx.org/proxy-read-timeout": "60s",
        "nginx.org/proxy-send-timeout": "60s",
    }


def test_no_secret_is_in_the_file_of_compose() -> None:
    assert COMPOSE["services"]["app"]["environment"]["SECRET_KEY"].startswith("${SECRET_KEY:?")


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


def test_what_is_counted_is_not_for_the_public(manifests: list[Manifest]) -> None:
    rules = manifest("Ingress", manifests)["spec"]["rules"]
    paths = {path["path"]: path["backend"]["service"]["name"] for path in rules[0]["http"]["paths"]}
    assert paths == {"/": NAME, "/metrics": f"{NAME}-closed", "/.slipway": f"{NAME}-closed"}
    (nobody,) = [each for each in manifests if each["metadata"]["name"] == f"{NAME}-closed"]
    assert "selector" not in nobody["spec"], "it leads to nobody"
    annotations = manifest("Deployment", manifests)["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(container(manifests)["ports"][0]["containerPort"])
    rule = COMPOSE["services"]["app"]["labels"]["traefik.http.routers.app.rule"]
    assert "!PathPrefix(`/metrics`) && !PathPrefix(`/.slipway`)" in rule


def test_a_site_of_many_names_has_several_routes(write: Write, gateway_api: Callable[[Manifest], str]) -> None:
    domains = [f"a{number}.example.com" for number in range(20)]
    _, found = write(extra={"kubernetes_gateway": "infra/public"}, nginx_domains=domains, nginx_blocked_paths=["/internal"])
    assert "Ingress" not in {each["kind"] for each in found}
    routes = [each for each in found if each["kind"] == "HTTPRoute"]
    assert [(gateway_api(each), unknown(each, FIELDS)) for each in routes] == [("", [])] * 2
    assert [name for route in routes for name in route["spec"]["hostnames"]] == domains
    assert len({route["metadata"]["name"] for route in routes}) == 2, "a route has 16 names at most"
    for route in routes:
        assert route["spec"]["parentRefs"] == [{"name": "public", "namespace": "infra"}]
        assert closed(route) == {"/internal", "/.slipway"}


def test_a_changed_setting_is_another_release(write: Write) -> None:
    changes: list[dict[str, Any]] = [{}, {"app_env": {"A": "1"}}, {"app_secrets": {"A": "1"}}]
    names = {manifest("Secret", write(app_name="my_shop", **change)[1])["metadata"]["name"] for change in changes}
    assert [name.startswith("my-shop-") for name in names] == [True] * 3, "Kubernetes has no '_' in names"


def test_what_has_no_image_is_refused(write: Write) -> None:
    said, found = write("")
    assert "api.example.com has no app_image" in said
    assert found == []
