"""A bench of ours that answers requests line by line (gpu_kernels_bench, gpu_layer_bench with --on-request)."""

import os
import random
import subprocess


class BenchProcess:
    def __init__(self, bench, deterministic=False, kernel=None):
        """kernel: the one that attention may take (SEQPAR_TEST_CUDA_ATTENTION)."""
        environment = dict(os.environ, SEQPAR_TEST_CUDA_ATTENTION=kernel) if kernel else None
        command = [bench, "--on-request"] + (["--deterministic"] if deterministic else [])
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        env=environment)

    def say(self, text):
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()

    def ask(self, text):
        """The words of the answer."""
        self.say(text)
        answer = self.process.stdout.readline().split()
        if not answer:
            raise SystemExit("the bench ended")
        return answer


def shuffled(items, turn):
    """The items in another order each turn: a card slows down as it warms up, so none may always follow the same one."""
    return random.Random(turn).sample(list(items), len(items))
