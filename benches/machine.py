"""What was measured, and on what."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path


def describe(sandbox, mode=None):
    """Names and what they are."""
    environment = os.environ | ({"SANDBOX_KVM_MODE": mode} if mode else {})
    told = subprocess.run([sandbox, "doctor", "--json"], capture_output=True, check=True, env=environment).stdout
    doctor = json.loads(told)
    in_mode = doctor.get("kvm_mode")
    if mode and in_mode != mode:
        sys.exit(f"bench: guests were to run in mode {mode}, and {sandbox} says {in_mode or 'nothing of a mode'}")
    found = {check["name"]: check["found"] for check in doctor["checks"]}
    family = f"{doctor['host']} KVM" + (f" in mode {in_mode}" if in_mode else "")
    return {
        "machine": f"{processor()}, {os.cpu_count()} cores, {family}, Linux {os.uname().release}, "
                   f"load average {load()} at the start",
        "sandbox": f"{found['sandbox']}, in the guest {found['guest kernel']} and Python {found['guest Python']}",
    }


def describe_modes(variants):
    """The same for each way to run `sandbox`."""
    facts = {}
    for variant in variants:
        told = describe(variant.prefix[0], variant.environment.get("SANDBOX_KVM_MODE"))
        facts |= told if len(variants) == 1 else {f"{name} ({variant.name})": what for name, what in told.items()}
    return facts


def afterwards():
    """What would make the figures worth less."""
    facts = {"load average at the end": load()}
    if modules := compiled_each_time():
        facts["not compiled, so that python3 is slower than it need be"] = ", ".join(modules)
    return facts


def load():
    """Of the last minute, 5 and 15 minutes."""
    return " ".join(f"{average:.1f}" for average in os.getloadavg())


def compiled_each_time():
    """Modules of python3's library that are compiled at each import, as where their files are newer than the cache."""
    command = ["/usr/bin/python3", "-v", "-c", "import json, re, sqlite3, multiprocessing.pool, http.server"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    return re.findall(r"^# code object from '(.*\.py)'", told, re.M)


def processor():
    """Its name and its maker."""
    told = Path("/proc/cpuinfo").read_text()
    name, maker = (re.search(rf"^{field}\s*: (.*)", told, re.M) for field in ("model name", "vendor_id"))
    return f"{name[1] if name else 'unknown processor'} ({maker[1] if maker else 'unknown maker'})"
