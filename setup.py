"""Installs STMask: `pip install -e .`, with the tools for tests `pip install -e .[dev]`."""

from setuptools import setup

setup(
    name="stmask",
    version="0.1.0",
    description="Video instance segmentation with spatial feature calibration and temporal fusion",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    py_modules=["stmask", "backbone", "eval"],
    packages=["data", "layers", "utils"],
    install_requires=[
        "torch>=2.4",
        "torchvision>=0.19",
        "numpy>=1.26",
        "opencv-python>=4.8",
        "pycocotools>=2.0.7",
        "av>=12",
        "tqdm>=4.66",
    ],
    extras_require={"dev": ["pytest>=8", "ruff>=0.6"]},
)
