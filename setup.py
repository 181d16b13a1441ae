"""Installs STMask: `pip install -e .`, with the tools for tests `pip install -e '.[dev]'`.

With a C compiler this also builds three extensions: the deformable convolution, the sums of Winograd's convolution, and
the inner loops of scoring. Without one, or if a build fails, everything works without them, but slower on a CPU. The
package ytvis is included; ytvis/pyproject.toml installs it alone.
"""

import re
import tempfile
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CCompilerError

FOLDER = Path(__file__).parent

# Each group is used only if the compiler accepts it. -march=native is right because the extensions are always built on
# the machine that runs them. The flags of the third group let a sum of products run in vectors, and keep NaN and
# infinity.
UNIX_FLAGS = (
    ["-O3"],
    ["-march=native"],
    ["-fassociative-math", "-fno-signed-zeros", "-fno-trapping-math"],
    ["-fopenmp"],
)
MSVC_FLAGS = (["/O2"], ["/openmp"])


class BuildWithAcceptedFlags(build_ext):
    """Adds the flags with which a trial program compiles and links."""

    def build_extensions(self) -> None:
        candidates = MSVC_FLAGS if self.compiler.compiler_type == "msvc" else UNIX_FLAGS
        flags = [flag for group in candidates if self.accepts(group) for flag in group]
        for extension in self.extensions:
            extension.extra_compile_args += flags
            extension.extra_link_args += [flag for flag in flags if flag == "-fopenmp"]
        super().build_extensions()

    def accepts(self, flags: list[str]) -> bool:
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "trial.c")
            source.write_text("int main(void) { return 0; }\n", "utf-8")
            try:
                objects = self.compiler.compile([str(source)], output_dir=folder, extra_postargs=flags)
                link_flags = [flag for flag in flags if flag == "-fopenmp"]
                self.compiler.link_executable(objects, "trial", output_dir=folder, extra_postargs=link_flags)
            except CCompilerError:
                return False
        return True


setup(
    name="stmask",
    version=re.search('__version__ = "(.+)"', (FOLDER / "ytvis" / "__init__.py").read_text("utf-8"))[1],
    description="Video instance segmentation with spatial feature calibration and temporal fusion",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    py_modules=["stmask", "backbone", "train", "eval"],
    packages=[
        "data",
        "inference",
        "layers",
        "layers.cpu",
        "layers.cuda",
        "tools",
        "utils",
        "ytvis",
        "ytvis.convert",
        "ytvis.report",
        "ytvis.score",
        "ytvis.viewer",
    ],
    package_data={"ytvis.report": ["page/*"], "ytvis.viewer": ["page/*"]},
    entry_points={"console_scripts": ["ytvis = ytvis.__main__:run_process"]},
    ext_modules=[
        Extension("layers.cpu._deform_im2col", ["layers/cpu/_deform_im2col.pyx"], optional=True),
        Extension("layers.cpu._winograd", ["layers/cpu/_winograd.pyx"], optional=True),
        Extension("ytvis._mask_kernels", ["ytvis/_mask_kernels.pyx"], optional=True),
    ],
    cmdclass={"build_ext": BuildWithAcceptedFlags},
    install_requires=[
        # Bounding boxes have a clamping_mode since torchvision 0.23, which is of torch 2.8.
        "torch>=2.8",
        "torchvision>=0.23",
        "numpy>=1.26",
        "opencv-python>=4.8.0.76",
        "pycocotools>=2.0.7",
        "av>=17.1",
        "tqdm>=4.66",
        "matplotlib>=3.8",
        "jinja2>=3.1",
        "pillow>=10.4",
        "scipy>=1.11.1",
    ],
    extras_require={
        "tensorboard": ["tensorboard>=2.15"],
        # Older ones of supervision bring opencv-python-headless, which overwrites the files of opencv-python.
        "export": ["pandas>=2", "supervision>=0.24"],
        # Up to 1.11 it does not turn the rotated boxes of CVAT.
        "datumaro": ["datumaro>=1.12"],
        # torch brings it where it has CUDA.
        "triton": ["triton>=3.4"],
        "yolo": ["pyyaml>=6.0.1"],
        # For the test that runs docs/tutorial.ipynb.
        "notebook": ["nbclient>=0.10", "ipykernel>=6"],
        "onnx": ["onnx>=1.17", "onnxruntime>=1.20", "onnxscript>=0.5"],
        "openvino": ["openvino>=2025.0"],
        "browser": ["playwright>=1.40"],
        "dev": ["pytest>=8", "pyyaml>=6.0.1", "pytest-xdist>=3.6.1", "ruff>=0.6", "tensorboard>=2.15"],
        # Apart from "dev", because it needs newer versions of numpy, scipy and others than STMask does.
        "crosscheck": ["trackeval>=1.3"],
    },
)
