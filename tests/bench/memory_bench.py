"""128K tokens forward and backward through one layer on 4 ranks, over real processes: every rank's peak beside what
the planner predicted, and the step beside its prediction.

    SEQPAR_BIN=build/bin python3 tests/bench/memory_bench.py [--tokens 131072] [--recompute auto]

Some four minutes on two cores; --tokens takes less. Exits with 1 where a rank's peak is off by more than 10 %.

example: SEQPAR_BIN=build/bin python3 tests/bench/memory_bench.py --tokens 16384 --recompute layer
"""
import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

BIN = pathlib.Path(os.environ.get("SEQPAR_BIN", "build/bin")).resolve()
RANKS = 4
BOUND = 0.10


def run(*args, server=None, cwd=None):
    where = ["--server", server] if server else []
    done = subprocess.run([str(BIN / "seqpar"), *where, "-o", "json", *map(str, args)], capture_output=True, text=True,
                          cwd=cwd)
    if done.returncode != 0:
        sys.exit(f"seqpar {' '.join(map(str, args))}: {done.stdout}{done.stderr}")
    return json.loads(done.stdout) if done.stdout.strip() else {}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=131072)
    parser.add_argument("--recompute", default="auto", choices=["auto", "none", "mlp", "attention", "layer"])
    args = parser.parse_args()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="seqpar-memory-"))
    (folder / "data").mkdir()
    job = {
        "name": "long",
        "config": {"hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 704, "num_hidden_layers": 1},
        "pass": "forward_backward",
        "weights": {"seed": 1},
        "input": {"seed": 2, "tokens": args.tokens},
        "grad_output": {"seed": 3},
        "recompute": args.recompute,
        "workers": {"min": RANKS, "max": RANKS},
    }
    (folder / "job.yaml").write_text(json.dumps(job))
    port = folder / "port"
    with open(folder / "log", "ab") as log:
        coordinator = subprocess.Popen(
            [str(BIN / "seqpar-coordinator"), "--listen", "127.0.0.1:0", "--port-file", str(port), "--state-dir",
             str(folder / "coordinator"), "--data-root", f"data={folder / 'data'}"], stdout=log, stderr=log)
        while not (port.exists() and port.read_text().strip()):
            time.sleep(0.02)
        server = "127.0.0.1:" + port.read_text().strip().rsplit(":", 1)[-1]
        worker = subprocess.Popen(
            [str(BIN / "seqpar-worker"), "--coordinator", server, "--node-name", "node", "--cpu-slots", str(RANKS),
             "--data-root", f"data={folder / 'data'}", "--state-dir", str(folder / "worker")], stdout=log, stderr=log)
    try:
        while not any(n["state"] == "NODE_STATE_READY" for n in run("nodes", server=server).get("nodes", [])):
            time.sleep(0.05)
        report = run("submit", "-f", folder / "job.yaml", "--wait", server=server, cwd=folder / "data")["report"]
    finally:
        for process in (worker, coordinator):
            process.terminate()
            process.wait(30)
        shutil.rmtree(folder, ignore_errors=True)
    print(f"{report['strategy']} {report['mesh']}, {report['layout']}, recompute {report['recompute']}: "
          f"{report['step_seconds']:.2f} s, predicted {report['predicted_step_seconds']:.2f} s "
          f"({100 * (report['predicted_step_seconds'] / report['step_seconds'] - 1):+.1f} %)")
    worst = 0
    for rank in report["ranks"]:
        peak, predicted = int(rank["peak_bytes"]), int(rank["predicted_peak_bytes"])
        off = predicted / peak - 1
        worst = max(worst, abs(off))
        print(f"rank {rank.get('rank', 0)}: peak {peak / 2**20:.1f} MiB, predicted {predicted / 2**20:.1f} MiB "
              f"({100 * off:+.1f} %)")
    sys.exit(0 if worst <= BOUND else 1)


if __name__ == "__main__":
    main()
