"""A DICOM node under load, and killed again and again.

    python Testing/benchmarks/node.py [--associations 200] [--kills 30] [--patients 8] [--seed 0]

Needs dcmtk's storescu and Orthanc. Load: that many associations with one slice each, ten at a time, are sent to a
node; how long the senders take, and the node's memory before and after. Kills: senders repeat their patients' CTs until
each was taken, while the node is killed (SIGKILL to all of its processes) at random moments and started again; its
destination, a real archive, is there only for some seconds in the middle, and at the end. When all is quiet, every
patient's contours must be in the archive, in one copy, and each case in one folder of the node.

Ends with exit code 1 when an image or a case was lost or doubled, or the load took more than a second an association.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "helpers"))

from orthanc import AE_TITLE, free_port, running_orthanc
from running_node import RunningNode, running_node
from tiny_bundle import patient, write_tiny_bundle

from soars.dicom.write import write_ct_series

AT_ONCE = 10
MOST_S = 1.0
"""An association, with a storescu of its own."""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--associations", type=int, default=200)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--patients", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        bundle = write_tiny_bundle(home / "tiny")
        figures = {
            **load(home, bundle, args.associations),
            **kills(home, bundle, args.patients, args.kills, random.Random(args.seed)),
        }
    for name, figure in figures.items():
        print(f"{name:36} {figure}")
    met = not figures["images lost"] and figures["load, s"] <= MOST_S * args.associations
    return (
        0 if met and figures["patients with one RTSTRUCT"] == args.patients and not figures["doubled"] else 1
    )


def load(home: Path, bundle: Path, associations: int) -> dict[str, float]:
    """Many associations, ten at a time; the slices of several series, dealt out like cards."""
    count = -(-associations // 50)
    series = [_ct(home / "load", f"load{number}", "Abdomen") for number in range(count)]
    hands = [file for slices in zip(*series, strict=True) for file in slices][:associations]
    (home / "load-node").mkdir()
    with running_node(home / "load-node", bundle, complete={"quiet_s": 3}) as node:
        before = _memory_mb(node)
        started = time.monotonic()
        with ThreadPoolExecutor(AT_ONCE) as pool:
            codes = list(tqdm(pool.map(lambda file: node.send([file]), hands), total=len(hands), desc="load"))
        seconds = time.monotonic() - started
        node.wait_for(lambda: not node.cases()["receiving"], "all are settled", seconds=120)
        came = sum(record["images"] for record in node.audit("refused"))
        return {
            "associations": len(hands),
            "load, s": round(seconds, 1),
            "images lost": len(hands) - came + sum(code != 0 for code in codes),
            "memory before, MB": before,
            "memory after, MB": _memory_mb(node),
        }


def kills(home: Path, bundle: Path, patients: int, times: int, chance: random.Random) -> dict[str, float]:
    """Patients sent to a node that dies again and again, and on to an archive that does so, too."""
    (home / "node").mkdir()
    cts = {f"ID-p{number}": _ct(home / "kills", f"p{number}", "Neck") for number in range(patients)}
    port = free_port()
    to = {"archive": {"host": "127.0.0.1", "port": port, "ae_title": AE_TITLE}}
    rules = [{"name": "neck", "bundle": str(bundle), "send": ["archive"]}]
    node = RunningNode(home / "node", bundle, destinations=to, rules=rules)
    node.start()
    try:
        sender = threading.Thread(target=_send_until_taken, args=(node, list(cts.values())))
        sender.start()
        states: Counter[str] = Counter()
        for number in tqdm(range(times), desc="kills"):
            time.sleep(chance.uniform(0.05, 3.0))
            if number == times // 2:  # the archive comes late, and goes again
                with running_orthanc(_made(home / "archive"), dicom_port=port):
                    time.sleep(chance.uniform(1, 4))
            states.update(state for state, cases in node.cases().items() for _ in cases)
            node.kill()
            node.start()
        sender.join()
        with running_orthanc(_made(home / "archive"), dicom_port=port) as archive:
            node.wait_for(lambda: node.counts() == {"done": patients}, "all are sent", seconds=600)
            there = Counter(tags["PatientID"] for tags in archive.of_modality("RTSTRUCT"))
        return {
            "kills": times,
            "cases in sight at a kill": sum(states.values()),
            "patients with one RTSTRUCT": sum(there[name] == 1 for name in cts),
            "doubled": sum(count > 1 for count in there.values()),
            "segmented, audit lines": len(node.audit("segmented")),
        }
    finally:
        node.close()


def _send_until_taken(node: RunningNode, cts: list[list[Path]]) -> None:
    """As a scanner does it: what was not acknowledged is sent again, the whole series."""
    for files in cts:
        while node.send(files) != 0:
            time.sleep(0.2)


def _ct(folder: Path, name: str, study: str) -> list[Path]:
    return sorted(
        write_ct_series(
            patient().image, folder / name, patient_id=f"ID-{name}", patient_name=name, seed=name,
            study_description=study,
        )
    )  # fmt: skip


def _made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


def _memory_mb(node: RunningNode) -> int:
    process = psutil.Process(node.pid)
    return sum(one.memory_info().rss for one in (process, *process.children(recursive=True))) >> 20


if __name__ == "__main__":
    sys.exit(main())
