"""Test hosts: they hear each other, until the line between them is cut, lossy, slow or narrow."""
import os
import pathlib
import subprocess
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import isolate  # noqa: E402
from hosts import Hosts, address_of  # noqa: E402

PORT = 5000
# Sends back every datagram.
ECHO = f"""
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("0.0.0.0", {PORT}))
print("ready", flush=True)
while True:
    data, peer = s.recvfrom(65536)
    s.sendto(data, peer)
"""
# Sends COUNT datagrams of SIZE bytes at once, and prints how many came back within SECONDS, and when the last did.
ASK = """
import socket, sys, time
address, count, size, seconds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
begin = last = time.monotonic()
for i in range(count):
    s.sendto(bytes(size), (address, %d))
came = 0
while came < count and time.monotonic() < begin + seconds:
    s.settimeout(max(0.001, begin + seconds - time.monotonic()))
    try:
        s.recvfrom(65536)
    except TimeoutError:
        break
    came += 1
    last = time.monotonic()
print(came, last - begin)
""" % PORT
LONG = 30  # within which whatever comes has come
SHORT = 1


class Lines(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.hosts = Hosts(3)
        cls.echo = subprocess.Popen([*cls.hosts.prefix(2), sys.executable, "-c", ECHO], stdout=subprocess.PIPE, text=True)
        assert cls.echo.stdout.readline() == "ready\n"

    @classmethod
    def tearDownClass(cls):
        cls.echo.kill()
        cls.echo.wait()
        cls.echo.stdout.close()
        cls.hosts.close()

    def tearDown(self):
        self.hosts.release("test")

    def ask(self, host, count=1, size=10, seconds=LONG):
        done = subprocess.run([*self.hosts.prefix(host), sys.executable, "-c", ASK, address_of(2), str(count), str(size),
                               str(seconds)], capture_output=True, text=True, check=True)
        came, last = done.stdout.split()
        return int(came), float(last)

    def test_hosts_hear_each_other(self):
        for host in (0, 1, 3):
            self.assertEqual(self.ask(host)[0], 1)

    def test_a_line_is_cut_and_mended(self):
        self.hosts.hold("test", [(2, 1)], blocked=True)
        self.assertEqual(self.ask(1, seconds=SHORT)[0], 0)
        self.assertEqual(self.ask(3)[0], 1, "another line")
        self.hosts.release("test")
        self.assertEqual(self.ask(1)[0], 1)

    def test_what_several_want_of_a_line_comes_together(self):
        self.hosts.hold("test", [(2, 1)], blocked=True)
        self.hosts.hold("other", [(2, 1)], delay=0.001)
        self.assertEqual(self.ask(1, seconds=SHORT)[0], 0)
        self.hosts.release("other")
        self.assertEqual(self.ask(1, seconds=SHORT)[0], 0)
        self.hosts.release("test")
        self.assertEqual(self.ask(1)[0], 1)

    def test_delay(self):
        self.hosts.hold("test", [(2, 1)], delay=0.2)
        came, seconds = self.ask(1)
        self.assertEqual(came, 1)
        self.assertGreaterEqual(seconds, 0.4)  # there and back

    def test_loss(self):
        self.hosts.hold("test", [(2, 1)], loss=0.5)
        came, _ = self.ask(1, count=200, seconds=SHORT)
        # A quarter of 200 is expected; ten standard deviations.
        self.assertTrue(0 < came < 110, came)

    def test_bandwidth(self):
        self.hosts.hold("test", [(2, 1)], rate=200_000)
        came, seconds = self.ask(1, count=10, size=4000)
        self.assertEqual(came, 10)
        self.assertGreaterEqual(seconds, 0.2)  # 40 KB at 200 KB/s; the way back overlaps


if __name__ == "__main__":
    if os.environ.get("SEQPAR_ISOLATED"):
        isolate.become_init()
        unittest.main()
    why_not = isolate.possible()
    if why_not:
        print(f"SKIPPED: no namespaces: {why_not}")
        sys.exit(77)
    os.environ["SEQPAR_ISOLATED"] = "1"
    sys.exit(isolate.run([sys.executable, __file__, *sys.argv[1:]]))
