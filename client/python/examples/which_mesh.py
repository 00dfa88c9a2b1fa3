#!/usr/bin/env python3
"""Which mesh a job would get as its sequence grows, and what that would take. Runs nothing."""
import argparse
import sys

import seqpar


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n  which_mesh.py job.yaml 10000 100000 1000000\n"
               "  which_mesh.py job.yaml 1000000 --cluster examples/cluster-16x8-h200.yaml --explain")
    parser.add_argument("job", help="a job file whose input has a seed")
    parser.add_argument("tokens", type=int, nargs="+")
    parser.add_argument("--server", help="host:port; default: $SEQPAR_SERVER, else 127.0.0.1:7700")
    parser.add_argument("--cluster", help="a file of machines that need not exist; default: the nodes that are attached")
    parser.add_argument("--explain", action="store_true", help="also what was rejected, and why")
    options = parser.parse_args()

    with open(options.job, encoding="utf-8") as file:
        job = seqpar.parse_job(file.read())
    with seqpar.Client(options.server) as client:
        for tokens in options.tokens:
            job.input.tokens = tokens
            try:
                plan = client.plan(job, cluster=options.cluster)
            except seqpar.InfeasibleError as error:
                why = "" if error.reason == "TOO_FEW_DEVICES" else "does not fit: "
                print(f"{tokens:>10}  {why}{error.message}")
                continue
            print(f"{tokens:>10}  {plan.mesh!s:<16} {plan.strategy:<12} {plan.prediction.step_seconds:.3g} s, "
                  f"{plan.prediction.peak_bytes / 1e9:.3g} GB a rank")
            if options.explain:
                print(plan)
    return 0


if __name__ == "__main__":
    sys.exit(main())
