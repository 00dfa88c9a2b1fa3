"""What a real bash completes: commands, options, values, fields of a job, files, and ids that the service knows."""
import subprocess
import unittest

from harness import BIN, ClusterTest, environment, scaled

# Readline calls the function with these variables; compopt works only inside it.
SCRIPT = """
compopt() { :; }
source <("$1" completion bash)
COMP_LINE="seqpar $2" COMP_POINT=$((7 + ${#2}))
_seqpar
printf '%s\\n' "${COMPREPLY[@]}"
"""


class Bash(ClusterTest):
    def complete(self, line):
        env = {**environment(), "SEQPAR_SERVER": self.server, "PATH": f"{BIN}:/usr/bin:/bin"}
        done = subprocess.run(["bash", "-c", SCRIPT, "bash", str(BIN / "seqpar"), line], capture_output=True, text=True,
                              env=env, cwd=self.data, timeout=scaled(60))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stderr, "")
        return done.stdout.split()

    def test_completes(self):
        job = self.submit(self.write_job())
        for line, want in (
                ("pl", ["plan"]),
                ("local u", ["up"]),
                ("-o json local stat", ["status"]),
                ("submit --wait-", ["--wait-timeout"]),
                ("submit --val", ["--validate-only"]),
                ("list --state r", ["running"]),
                ("list -o ", ["table", "json"]),
                ("completion z", ["zsh"]),
                ("submit -f jo", ["job.yaml"]),
                ("submit --set config.num_kv", []),
                ("submit --set config.num_key", ["config.num_key_value_heads="]),
                ("submit --set mask.kind=w", ["window"]),  # readline replaces what stands after '='
                (f"get {job[:4]}", [job]),
                ("drain nod", ["node-a"]),
        ):
            with self.subTest(line=line):
                self.assertEqual(self.complete(line), want)
        self.assertIn("--server", self.complete("get --"))
        self.assertIn("submit", self.complete(""))
        self.assertNotIn("id=", self.complete("submit --set "))

    def test_nothing_where_no_service_answers(self):
        self.coordinator.kill()
        self.assertEqual(self.complete("get j"), [])


if __name__ == "__main__":
    unittest.main()
