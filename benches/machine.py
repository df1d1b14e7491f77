"""What was measured, and on what."""

import json
import os
import re
import subprocess
from pathlib import Path


def describe(sandbox):
    """Names and what they are."""
    told = subprocess.run([sandbox, "doctor", "--json"], capture_output=True, check=True).stdout
    doctor = json.loads(told)
    found = {check["name"]: check["found"] for check in doctor["checks"]}
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return {
        "machine": f"{model[1] if model else 'unknown processor'}, {os.cpu_count()} cores, {doctor['host']} KVM, "
                   f"Linux {os.uname().release}, load average {os.getloadavg()[0]:.1f} at the start",
        "sandbox": f"{found['sandbox']}, in the guest {found['guest kernel']} and Python {found['guest Python']}",
    }
