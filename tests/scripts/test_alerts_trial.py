"""The alerts' trial: rules are made faster without other changes, and a real Prometheus takes them."""

from __future__ import annotations

import shutil

import pytest
import yaml

from scripts.torture.alerts import FAULTS, RULES, faster


def test_only_durations_change() -> None:
    (shipped,) = yaml.safe_load(RULES.read_text())["groups"]
    (quick,) = yaml.safe_load(faster(RULES.read_text(), 30.0))["groups"]
    assert [rule["alert"] for rule in quick["rules"]] == [rule["alert"] for rule in shipped["rules"]]
    for rule, slow in zip(quick["rules"], shipped["rules"], strict=True):
        assert rule["expr"] == slow["expr"].replace("[5m]", "[10000ms]").replace(
            "[10m]", "[20000ms]"
        ).replace("[15m]", "[30000ms]")
    (late,) = [rule for rule in quick["rules"] if rule["alert"] == "EchomimicFramesLate"]
    assert late["for"] == "10000ms"


def test_each_fault_names_alerts_that_ship() -> None:
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    shipped = {rule["alert"] for rule in group["rules"]}
    assert set().union(*(alerts for _, alerts in FAULTS.values())) <= shipped


@pytest.mark.long
@pytest.mark.process
@pytest.mark.timing
@pytest.mark.skipif(shutil.which("prometheus") is None, reason="needs prometheus (apt install prometheus)")
def test_each_alert_fires_for_its_fault() -> None:
    from scripts.torture.alerts import main

    assert main([]) == 0
