"""Makes what the example has to offer: a container image, an APK repository, and three libraries.

Everything is made anew with the same bytes, so that nothing binary lies in the repository.
"""

import gzip
import hashlib
import io
import json
import tarfile
import zipfile
from pathlib import Path

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"


def tar(files):
    """A gzipped tar archive, without a time in it."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, text in files.items():
            data = text.encode()
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o644
            archive.addfile(member, io.BytesIO(data))
    return gzip.compress(plain.getvalue(), mtime=0)


def package(files):
    """A zip archive: a wheel or a jar is one."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(zipfile.ZipInfo(name), text)
    return data.getvalue()


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def image(folder, text):
    """Writes an image with one file that holds the text, in the OCI layout; `oci:FOLDER:latest`.

    Answers its manifest, and its blobs by digest.
    """
    layer = tar({"hello.txt": text})
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [digest(gzip.decompress(layer))]},
        }
    ).encode()

    def descriptor(kind, data):
        media_type = f"application/vnd.oci.image.{kind}"
        return {"mediaType": media_type, "digest": digest(data), "size": len(data)}

    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": descriptor("config.v1+json", config),
            "layers": [descriptor("layer.v1.tar+gzip", layer)],
        }
    ).encode()
    named = descriptor("manifest.v1+json", manifest)
    named["annotations"] = {"org.opencontainers.image.ref.name": "latest"}
    write(
        folder,
        {
            "oci-layout": b'{"imageLayoutVersion": "1.0.0"}',
            "index.json": json.dumps({"schemaVersion": 2, "manifests": [named]}).encode(),
            **{
                f"blobs/{digest(data).replace(':', '/')}": data
                for data in (layer, config, manifest)
            },
        },
    )
    return manifest, {digest(data): data for data in (layer, config)}


def files(folder):
    """Writes what is served as static files."""
    wheel, about = "hello-1.0-py3-none-any.whl", "hello-1.0.dist-info"
    tag = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    manifest = {"META-INF/MANIFEST.MF": "Manifest-Version: 1.0\n"}
    contents = {
        "apk/x86_64/APKINDEX.tar.gz": tar({"APKINDEX": "P:hello\nV:1.0-r0\nA:x86_64\n\n"}),
        "apk/x86_64/hello-1.0-r0.apk": tar({".PKGINFO": "pkgname = hello\npkgver = 1.0-r0\n"}),
        "java/com/acme/hello/1.0/hello-1.0.jar": package(manifest),
        "python/simple/hello/index.html": f'<a href="../../files/{wheel}">{wheel}</a>\n'.encode(),
        f"python/files/{wheel}": package(
            {
                "hello.py": "print('hello')\n",
                f"{about}/METADATA": "Metadata-Version: 2.1\nName: hello\nVersion: 1.0\n",
                f"{about}/WHEEL": tag,
                f"{about}/RECORD": "",
            }
        ),
        "javascript/hello/-/hello-1.0.0.tgz": tar(
            {"package/package.json": '{"name": "hello", "version": "1.0.0"}'}
        ),
    }
    write(folder, contents)


def write(folder, contents):
    for name, data in contents.items():
        path = Path(folder) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
