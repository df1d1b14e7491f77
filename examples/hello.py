"""Says hello, and where from."""
import platform

print(f"Hello from Python {platform.python_version()} on Linux {platform.release()}")
