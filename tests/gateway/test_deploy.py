"""The shipped files for operators: each metric that they name is exported, and each setting exists."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import fields
from typing import Any

import pytest
import yaml
from websockets.exceptions import InvalidStatus
from websockets.typing import Origin

from gateway.metrics import FAILURE_CAUSES, SessionTotals
from gateway.stages import STAGES
from protocol.process.settings import ROOT, Settings
from protocol.wire.messages import Failed
from tests.gateway.clients import client_v2, noise
from tests.gateway.conftest import Running

DEPLOY = ROOT / "deploy"
ALERTS = DEPLOY / "prometheus/alerts.yml"
DASHBOARD = DEPLOY / "grafana/dashboards/echomimic-live.json"


def alert_rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(ALERTS.read_text())["groups"]
    rules: list[dict[str, Any]] = group["rules"]
    return rules


def expressions() -> dict[str, str]:
    """Every PromQL expression, by where it stands."""
    found = {rule["alert"]: rule["expr"] for rule in alert_rules()}
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", []):
            found[f"{panel['title']} {target['refId']}"] = target["expr"]
    return found


@pytest.mark.process
async def test_every_metric_of_alerts_and_dashboard_is_exported(gateway: Running) -> None:
    gateway.does.failing_clips = {1}
    async with client_v2(gateway) as client:
        await client.speak(noise(2.0))
        await client.until(lambda c: len(c.frames) >= 36)
        text = gateway.get("/metrics")[1]
    # One error and one refusal must have happened for their counters to be there.
    with pytest.raises(InvalidStatus, match="403"):
        async with client_v2(gateway, origin=Origin("https://evil.example")):
            pass
    async with client_v2(gateway, ready=False, hello={"avatar": "nobody"}) as client:
        await client.closed()
    text += gateway.get("/metrics")[1]
    labels: dict[str, set[str]] = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            name, _, rest = line.partition("{")
            labels.setdefault(name.split()[0], set()).update(re.findall(r"(\w+)=", rest.partition("}")[0]))
    for where, expression in expressions().items():
        names = re.findall(r"\bechomimic_\w+", expression)
        assert names or where == "EchomimicDown", where
        for name in names:
            assert name in labels, f"{where}: {name} is not exported"
        grouped = {label for by in re.findall(r"by \(([^)]*)\)", expression) for label in by.split(", ")}
        known = set().union(*(labels[name] for name in names)) if names else set()
        assert grouped <= known, f"{where}: no metric has the labels {grouped - known}"


def test_failures_are_counted_by_stage_and_cause() -> None:
    totals = SessionTotals()
    assert set(totals.failures) == {(stage, cause) for stage in STAGES for cause in FAILURE_CAUSES}
    for stage, reason, fatal in (
        ("gpu_worker", "overload: the encoder cannot keep up, a clip was left out", False),
        ("gpu_worker", "overload", False),
        ("encoder_worker", "out of memory", False),
        ("audio_worker", "overload of another kind", True),
        ("a stage of nobody", "fault", False),
    ):
        totals.add_failure(Failed("s", 1, 1, stage.replace(" ", "_"), reason, fatal))
    assert +totals.failures == {
        ("gpu_worker", "overload"): 2,
        ("encoder_worker", "fault"): 1,
        ("audio_worker", "fatal"): 1,
    }


def test_every_alert_says_how_bad_it_is_and_what_to_do() -> None:
    names = [rule["alert"] for rule in alert_rules()]
    assert len(set(names)) == len(names) >= 8
    for rule in alert_rules():
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"]["summary"].endswith(".") and rule["annotations"]["action"]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool (apt install prometheus)")
def test_promtool_takes_the_rules() -> None:
    done = subprocess.run(["promtool", "check", "rules", ALERTS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_compose_has_the_profiles_and_only_known_settings() -> None:
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text())
    services = compose["services"]
    assert {name for service in services.values() for name in service["profiles"]} == {
        "cpu", "cuda", "tls", "observability",
    }  # fmt: skip
    known = {f"ECHOMIMIC_{field.name.upper()}" for field in fields(Settings)}
    for name in ("cpu", "cuda"):
        service = services[name]
        assert set(service["environment"]) <= known
        assert service["read_only"] and service["cap_drop"] == ["ALL"]
        assert service["ports"][0].startswith("${FACE_BIND:-127.0.0.1}")
    mounted = [volume for service in services.values() for volume in service["volumes"] if volume[0] == "."]
    assert mounted and all((ROOT / volume.split(":")[0]).exists() for volume in mounted)
    caddy = services["caddy"]["networks"]["front"]["ipv4_address"]
    assert services["cpu"]["environment"]["ECHOMIMIC_TRUSTED_PROXIES"] == caddy


def test_the_image_gets_no_more_than_it_needs() -> None:
    """Whatever the Dockerfile copies is let through by .dockerignore, and nothing else is."""
    lines = re.findall(r"^COPY (\w\S*) /", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    copied = {line.split("/")[0] for line in lines}
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    allowed = {line[1:].split("/")[0] for line in ignore if line.startswith("!")}
    assert copied == allowed and ignore[1] == "*"
    variables = set(re.findall(r"\bECHOMIMIC_(\w+)=", (ROOT / "Dockerfile").read_text()))
    assert {name.lower() for name in variables} <= {field.name for field in fields(Settings)}


def test_the_target_cuda_alone_installs_torch() -> None:
    text = (ROOT / "Dockerfile").read_text()
    targets = dict(re.findall(r"^FROM base AS (\w+)\n(.*?)(?=^FROM |\Z)", text, re.MULTILINE | re.DOTALL))
    whole = "-r requirements-torch.lock"
    assert whole in targets["cuda"] and whole not in targets["cpu"]
    lock = (ROOT / "requirements-torch.lock").read_text()
    # The lines of the lock file that are taken alone.
    for target, package in (("cpu", "silero-vad"), ("cuda", "torch")):
        assert re.findall(r"grep -E '([^']+)' requirements-torch.lock", targets[target]) == [f"^{package}=="]
        assert len(re.findall(f"^{package}==", lock, re.MULTILINE)) == 1
