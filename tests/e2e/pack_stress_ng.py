# Packs Debian's stress-ng with its libraries into a program that the guest's Python unpacks and runs.
import re, subprocess, sys, zipfile
binary = "/usr/bin/stress-ng"
libraries = subprocess.run(["ldd", binary], check=True, capture_output=True, text=True).stdout
with zipfile.ZipFile(sys.argv[1], "w", zipfile.ZIP_DEFLATED) as archive:
    archive.writestr("__main__.py", """
import os, sys, zipfile
zipfile.ZipFile(sys.argv[0]).extractall('/tmp/stress')
os.chdir('/tmp/stress')
for name in os.listdir(): os.chmod(name, 0o755)
loader = './ld-linux-x86-64.so.2'
os.execv(loader, [loader, '--library-path', '.', './stress-ng', *sys.argv[1:]])
""")
    for path in [binary, *re.findall(r"(/\S+) \(0x", libraries)]:
        archive.write(path, path.rsplit("/", 1)[1])
