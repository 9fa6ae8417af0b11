"""The settings of a node: what can be wrong in the file is said before the first patient arrives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from soars.cli import main
from soars.errors import InputError
from soars.node.collect import matching
from soars.node.config import read_config, schema_text
from soars.node.rules import holds, read_conditions, values_of

LEAST: dict[str, Any] = {"schema": 1, "state": "state", "rules": [{"name": "all"}]}


def written(folder: Path, **changes: Any) -> Path:
    path = folder / "node.yaml"
    path.write_text(yaml.safe_dump({**LEAST, **changes}))
    return path


def test_the_least_is_a_node_on_loopback_whose_paths_are_beside_the_file(tmp_path: Path) -> None:
    config = read_config(written(tmp_path))
    assert config.state == tmp_path / "state"
    assert (config.listen.host, config.status.host) == ("127.0.0.1", "127.0.0.1")
    assert config.listen.ae_titles == ("SOARS",) and config.limits.cases == 500


def test_a_rule_may_name_the_second_card(tmp_path: Path) -> None:
    config = read_config(written(tmp_path, rules=[{"name": "a", "device": "cuda:1"}]))
    assert config.rules[0].options.device == "cuda:1"


@pytest.mark.parametrize(
    ("texts", "value", "expected"),
    [
        (("HEAD*", "NECK"), "neck", True),
        (("HEAD*", "NECK"), "CHEST", False),
        (("!=*topo*", "!=*MAR*"), "HN topo", False),
        (("!=*topo*", "!=*MAR*"), "HN MAR", False),
        (("!=*topo*", "!=*MAR*"), "HN", True),
        (("HEAD*", "!=*MAR*"), "HEAD MAR", False),
        (("HEAD*", "!=*MAR*"), "HEAD", True),
        (("HEAD*", "!=*MAR*"), "CHEST", False),
    ],
)
def test_one_text_of_a_list_must_match_and_none_that_excludes(
    texts: tuple[str, ...], value: str, expected: bool
) -> None:
    when = read_conditions({"SeriesDescription": texts})
    assert holds(when, {"SeriesDescription": value}) is expected


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"schema": 2}, "schema: 1 is known here, not 2"),
        ({"stat": "x"}, "there is no setting stat; there are schema, state"),
        ({"rules": []}, "rules: at least one is needed"),
        ({"rules": [{"name": "a"}, {"name": "a"}]}, "two have the same name"),
        ({"rules": [{"name": "a", "send": ["tps"]}]}, "rules[0].send: there is no destination tps"),
        ({"rules": [{"name": "a", "when": {"BodyPart": "NECK"}}]}, "rules[0]: when.BodyPart: is neither called"),
        ({"rules": [{"name": "a", "when": {"SliceThickness": "<thin"}}]}, "'thin' is not a number"),
        ({"rules": [{"name": "a", "when": {"SliceThickness": 3}}]}, "write it in quotes"),
        ({"rules": [{"name": "a", "organs": ["Brainstm"]}]}, "did you mean Brainstem"),
        ({"rules": [{"name": "a", "device": "gpu"}]}, "rules[0]: device: auto, cpu, cuda or a numbered card"),
        ({"rules": [{"bundle": "starter"}]}, "rules[0]: name must be given"),
        ({"listen": {"port": "104"}}, "listen.port: a whole number is wanted, not '104'"),
        ({"listen": {"port": 0}}, "not a port"),
        ({"listen": {"ae_titles": ["MORE THAN SIXTEEN"]}}, "not an AE title"),
        ({"listen": {"others": "keep"}}, "listen.others: one of refuse, discard is wanted"),
        ({"listen": {"tls": {"certificate": "no.pem", "key": "no.key"}}}, "listen.tls.certificate: there is no file"),
        ({"destinations": {"a": {}}}, "destinations.a: give either host, port and ae_title, or web"),
        ({"destinations": {"a": {"web": "pacs"}}}, "not a DICOMweb address"),
        ({"destinations": {"a": {"web": "https://user:word@pacs"}}}, "would be stored and shown readable"),
        ({"destinations": {"a": {"web": "http://pacs", "rtstruct": False}}}, "neither RTSTRUCT nor SEG"),
        ({"destinations": {"a": {"web": "http://pacs", "names": "no.csv"}}}, "cannot read"),
        ({"complete": {"quiet_s": -1}}, "quiet_s: 0 or more is wanted"),
        ({"limits": {"cases": True}}, "limits.cases: a whole number is wanted"),
        ({"poll": {"pacs": {"every_s": 5}}}, "poll.pacs: web must be given"),
        ({"poll": {"pacs": {"web": "https://pacs", "days": 10**6}}}, "days: 36500 or fewer"),
        ({"listen": {"idle_s": 10**400}}, "listen.idle_s: a number is wanted, not 1000"),
        ({"retry": {"first_s": float("nan")}}, "retry.first_s: a number is wanted, not nan"),
        ({"keep": {"done_days": float("inf")}}, "keep.done_days: a number is wanted, not inf"),
        ({"state": "a\x00b"}, "state: holds a control character"),
        ({"state": "~nobody-of-this-name/state"}, "state: ~nobody-of-this-name/state: there is no such user"),
        ({"destinations": {"../a": {"web": "https://pacs"}}}, "'../a': a name has letters, digits"),
        ({"rules": [{"name": "a", "when": {"PatientID": "x" * 5000, "Nonsense": "1"}}]}, "when.Nonsense: is neither"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_by_where_it_is(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    path = written(tmp_path, **changes)
    with pytest.raises(InputError) as error:
        read_config(path)
    assert str(error.value).startswith(f"{path}: ") and said in str(error.value)


@pytest.mark.parametrize("text", ["", "- a", "{", "a: &x [*x]", "\x00", "a: !!python/object:os.system {}"])
def test_a_file_that_is_no_settings_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "node.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match="node.yaml"):
        read_config(path)


def test_check_names_rules_bundles_and_doubts(tmp_path: Path, bundle: Path, capsys) -> None:
    rules = [{"name": "neck", "bundle": str(bundle), "send": ["tps"]}]
    to = {
        "tps": {"host": "tps.example.org", "port": 104, "ae_title": "TPS"},
        "old": {"web": "https://old.example"},
    }
    path = written(tmp_path, rules=rules, destinations=to, listen={"host": "0.0.0.0"})
    assert main(["serve", "--check", str(path)]) == 0
    said = capsys.readouterr()
    assert "rule neck: tiny 1, 3 organs, sent to tps" in said.out
    assert (
        "unencrypted" in said.err
        and "every AE title may send" in said.err
        and "no rule sends to old" in said.err
    )
    assert not (tmp_path / "state").exists(), "checking makes nothing"
    assert main(["serve", "--check", str(written(tmp_path, rules=[{"name": "a", "bundle": "nowhere"}]))]) == 2
    assert main(["serve"]) == 2


def test_the_schema_lists_every_setting(capsys) -> None:
    assert main(["serve", "--schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert schema == json.loads(schema_text())
    assert schema["required"] == ["schema", "state", "rules"] and schema["additionalProperties"] is False
    rule = schema["properties"]["rules"]["anyOf"][0]
    assert rule["required"] == ["name"] and rule["properties"]["engine"]["enum"] == [
        "auto",
        "torch",
        "onnxruntime",
    ]
    documented = (Path(__file__).resolve().parents[2] / "docs" / "node.md").read_text(encoding="utf-8")
    tables = [schema["properties"], rule["properties"]]
    tables += [each["properties"] for each in schema["properties"].values() if "properties" in each]
    tables.append(schema["properties"]["destinations"]["additionalProperties"]["properties"])
    tables.append(schema["properties"]["poll"]["additionalProperties"]["properties"])
    missing = [name for table in tables for name in table if f"`{name}`" not in documented]
    assert not missing, "docs/node.md explains each"


def test_the_first_rule_whose_conditions_hold_counts(tmp_path: Path, ct) -> None:
    from soars.node.rules import header_of

    when = [
        {"called": "SOARS_HN", "Modality": "CT"},
        {"BodyPartExamined": ["HEAD", "NECK"]},
        {"BodyPartExamined": "head*", "SliceThickness": "<=3"},
        {},
    ]
    rules = [{"name": str(n), "when": conditions} for n, conditions in enumerate(when)]
    config = read_config(written(tmp_path, rules=rules))
    keys = {key for rule in config.rules for key in rule.conditions}
    values = values_of(header_of(ct("anna")[0], keys), keys)
    assert values == {"Modality": "CT", "BodyPartExamined": "HEADNECK", "SliceThickness": "3.0"}
    for called, expected in (("SOARS", "2"), ("SOARS_HN", "0")):
        found = matching(config.rules, {**values, "called": called})
        assert found is not None and found.name == expected
    thick = matching(config.rules, {**values, "SliceThickness": "5", "called": ""})
    assert thick is not None and thick.name == "3"
    assert matching(config.rules[:1], {**values, "called": ""}) is None
