"""What starts the app's image elsewhere: Kubernetes takes the manifests as they are, and compose.yaml keeps the same promises."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

APP = Path(__file__).resolve().parents[2] / "app"
MANIFESTS = list(yaml.safe_load_all((APP / "deploy" / "kubernetes.yaml").read_text(encoding="utf-8")))
COMPOSE = yaml.safe_load((APP / "compose.yaml").read_text(encoding="utf-8"))
OLDEST = 31
VERSIONS = [f"1.{minor}" for minor in range(OLDEST, int(kubernetes_validate.latest_version().split(".")[1]) + 1)]


def manifest(kind: str) -> dict[str, Any]:
    (found,) = [each for each in MANIFESTS if each["kind"] == kind]
    return dict(found)


def container() -> dict[str, Any]:
    (found,) = manifest("Deployment")["spec"]["template"]["spec"]["containers"]
    return dict(found)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("document", MANIFESTS, ids=lambda document: document["kind"])
def test_kubernetes_takes_each_manifest(document: dict[str, Any], version: str) -> None:
    kubernetes_validate.validate(document, version, strict=True)


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


def test_images_are_of_a_version() -> None:
    images = [service["image"] for name, service in COMPOSE["services"].items() if name != "app"]
    assert [image for image in images if not re.search(r":v?\d+\.\d+", image)] == []
    assert re.search(r"^ARG BASE=\S+:3\.\d+-slim$", (APP / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
