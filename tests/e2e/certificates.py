"""Certificates made by openssl for tests: an authority, and leaves with any names and any time."""
import datetime
import hashlib
import pathlib
import secrets
import subprocess


def openssl(*args):
    subprocess.run(["openssl", *map(str, args)], check=True, capture_output=True)


class Authority:
    """A CA of the test's own in a folder; `cert` is its certificate."""

    def __init__(self, folder, name="ca"):
        self.folder = pathlib.Path(folder)
        self.name = name
        self.cert = self.folder / f"{name}.crt"
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", 2, "-subj",
                f"/CN=test {name}", "-keyout", self.folder / f"{name}.key", "-out", self.cert)

    def issue(self, name, alternative_names, past=False, usages="serverAuth,clientAuth", days=None):
        """(certificate, key): files called `name`, replaced whole; `past`: its time is over; `usages`: extended ones; `days`:
        that it has left."""
        request, extensions = self.folder / f"{name}.csr", self.folder / f"{name}.ext"
        made, key = self.folder / f"{name}.crt.new", self.folder / f"{name}.key.new"
        openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}", "-keyout",
                key, "-out", request)
        extensions.write_text(f"subjectAltName={alternative_names}\nextendedKeyUsage={usages}\n")
        # `openssl x509` knows days from now on only; `openssl ca` needs a folder of its own for dates.
        database = self.folder / f"{name}.db"
        database.mkdir(exist_ok=True)
        (database / "index").write_text("")
        (database / "config").write_text(
            f"[ca]\ndefault_ca=it\n[it]\nnew_certs_dir={database}\ndatabase={database}/index\nrand_serial=yes\n"
            "default_md=sha256\npolicy=any\nunique_subject=no\n[any]\ncommonName=supplied\n")
        dates = ("20200101000000Z", "20200102000000Z") if past else ("20200101000000Z", "20490101000000Z")
        if days is not None:
            end = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=days)
            dates = (dates[0], end.strftime("%Y%m%d%H%M%SZ"))
        openssl("ca", "-batch", "-notext", "-config", database / "config", "-cert", self.cert, "-keyfile",
                self.folder / f"{self.name}.key", "-in", request, "-out", made, "-extfile", extensions, "-startdate",
                dates[0], "-enddate", dates[1])
        key.replace(self.folder / f"{name}.key")
        made.replace(self.folder / f"{name}.crt")
        return self.folder / f"{name}.crt", self.folder / f"{name}.key"


class Tokens:
    """The file of hashed tokens, and a file for each token."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.file = self.folder / "tokens"
        self.lines = {}
        self.write()

    def add(self, name, expires="2049-01-01", **fields):
        token = secrets.token_hex(32)
        file = self.folder / f"{name}.token"
        file.write_text(token + "\n")
        words = " ".join(f"{k}={v}" for k, v in fields.items())
        self.lines[name] = f"name={name} {words} expires={expires} sha256={hashlib.sha256(token.encode()).hexdigest()}"
        self.write()
        return file

    def remove(self, name):
        del self.lines[name]
        self.write()

    def write(self):
        new = self.folder / "tokens.new"
        new.write_text("# of the test\n" + "".join(line + "\n" for line in self.lines.values()))
        new.replace(self.file)
