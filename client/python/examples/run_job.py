#!/usr/bin/env python3
"""Submits a small job from typed values, waits for it with a progress bar, and looks at what it wrote."""
import argparse
import sys

import numpy as np

import seqpar


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
                                     epilog="examples:\n  run_job.py\n  run_job.py --server coordinator:7700 --tokens 35149")
    parser.add_argument("--server", help="host:port; default: $SEQPAR_SERVER, else 127.0.0.1:7700")
    parser.add_argument("--tokens", type=int, default=4096, help="length of the sequence (default: 4096)")
    parser.add_argument("--output", default="run_job.safetensors", help="under the service's first data root")
    options = parser.parse_args()

    job = seqpar.Job(
        name="from-python",
        config=seqpar.ModelConfig(hidden_size=64, num_attention_heads=4, num_key_value_heads=2, intermediate_size=176,
                                  num_hidden_layers=2, rope_theta=10000.0),
        mask=seqpar.Mask(kind="causal"),
        weights=seqpar.TensorSource(seed=1),
        input=seqpar.Input(seed=2, tokens=options.tokens),
        output=seqpar.Output(file=options.output, overwrite=True),
        verify=seqpar.Verify(rows=4))

    with seqpar.Client(options.server) as client:
        try:
            done = client.run(job, progress=True)
        except seqpar.InvalidError as error:
            for violation in error.violations:
                print(violation, file=sys.stderr)
            return 3
        except seqpar.JobFailedError as error:
            print(f"{error.reason}: {error}", file=sys.stderr)
            return 1
        report = done.report
        assert report is not None  # of a job that succeeded
        print(f"{report.mesh} {report.strategy}: {report.step_seconds:.3f} s, predicted {report.predicted_step_seconds:.3f} s; "
              f"verified to {report.verification.worst_error:.1e}")
        hidden = client.results(done)["hidden_states"]
        print(f"hidden_states {hidden.shape} {hidden.dtype}, rms {np.sqrt(np.mean(np.square(hidden))):.4f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
