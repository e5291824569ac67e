"""Generates the messages and stubs from the schema of the repository when the package is built."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

# Beside the package in the repository, and in it in a source distribution.
PLACES = [Path(__file__).parent / "proto", Path(__file__).parent.parent.parent / "proto"]


class Generate(build_py):
    def run(self):
        super().run()
        import grpc_tools
        from grpc_tools import protoc

        proto = next(place for place in PLACES if (place / "capstan").is_dir())
        out = Path(self.build_lib)
        out.mkdir(parents=True, exist_ok=True)
        files = sorted(str(path.relative_to(proto)) for path in proto.glob("capstan/**/*.proto"))
        well_known = Path(grpc_tools.__file__).parent / "_proto"
        code = protoc.main(
            ["protoc", f"-I{proto}", f"-I{well_known}", f"--python_out={out}"]
            + [f"--pyi_out={out}", f"--grpc_python_out={out}", *files]
        )
        if code != 0:
            raise RuntimeError("the schema does not compile")


setup(cmdclass={"build_py": Generate})
