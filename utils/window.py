"""A window that shows a stream while it runs, if a screen is available."""

import os
import subprocess
import sys
from types import TracebackType
from typing import Self

import cv2
import numpy as np

_ESCAPE = 27
# Without a reachable screen, OpenCV's windows end the whole process: another process has to try.
_TRIAL = "import cv2; cv2.namedWindow('trial', cv2.WINDOW_NORMAL); cv2.waitKey(1); cv2.destroyAllWindows()"
_TRIAL_SECONDS = 30


class LiveWindow:
    """A context manager that opens a window named `title` and shows pictures in it."""

    def __init__(self, title: str):
        self.title = title

    @staticmethod
    def can_open() -> bool:
        """Whether a screen is available, and OpenCV can open windows on it."""
        if sys.platform.startswith("linux") and not {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys():
            return False
        line = [sys.executable, "-c", _TRIAL]
        try:
            trial = subprocess.run(line, capture_output=True, timeout=_TRIAL_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            return False
        return trial.returncode == 0

    def __enter__(self) -> Self:
        cv2.namedWindow(self.title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        cv2.destroyAllWindows()

    def show(self, picture: np.ndarray) -> bool:
        """Shows a picture [h,w,3] uint8 RGB; returns False once q or Escape is pressed or the window is closed."""
        cv2.imshow(self.title, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        key = cv2.waitKey(1) & 0xFF
        return key not in (ord("q"), _ESCAPE) and cv2.getWindowProperty(self.title, cv2.WND_PROP_VISIBLE) >= 1
