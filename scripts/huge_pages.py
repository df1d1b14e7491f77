"""Makes a program's code fit the huge pages of whoever maps it.

    huge_pages.py merge PROGRAM       its segments that nobody writes to become one: one mapping holds them
    huge_pages.py align IMAGE PATH    a file of an erofs image moves to a multiple of 2 MiB
    huge_pages.py fill IMAGE PATH FILE    an empty file of an erofs image gets the content of FILE, at such a multiple

Code that is mapped in pages of 4 KiB costs a machine a fault for each of them.
"""

import struct
import sys

BLOCK = 4096
HUGE_PAGE = 2 << 20

# ELF-64 (System V ABI, gABI chapter 5).
SEGMENT = struct.Struct("<IIQQQQQQ")
PT_NULL, PT_LOAD, PF_X, PF_W, PF_R = 0, 1, 1, 2, 4

# The on-disk format of erofs (Linux, fs/erofs/erofs_fs.h): of the super block and of compact inodes.
SUPER, CHECKSUMMED, BLOCK_BITS, ROOT, BLOCKS, META = 1024, 8, 12, 14, 36, 40
INODE, INODE_SIZE, INODE_UNIT = struct.Struct("<HHHHIII"), 8, 32
FLAT_PLAIN, FLAT_INLINE = 0, 2
ENTRY = struct.Struct("<QHBB")


def merge(path):
    with open(path, "r+b") as file:
        program = bytearray(file.read())
        table, (size, count) = struct.unpack_from("<Q", program, 32)[0], struct.unpack_from("<HH", program, 54)
        places = [table + index * size for index in range(count)]
        segments = [(place, SEGMENT.unpack_from(program, place)) for place in places]
        constant = [(place, it) for place, it in segments if it[0] == PT_LOAD and not it[1] & PF_W]
        (first, (_, _, offset, address, physical, _, _, alignment)), *others = constant
        _, _, last_offset, last_address, _, length, _, _ = constant[-1][1]
        # What is between them comes along: one mapping is the same bytes at the same addresses only then.
        if any(it[3] - it[2] != address - offset for _, it in constant):
            sys.exit(f"{path}: its segments are not at one distance from the file")
        length += last_address - address
        SEGMENT.pack_into(program, first, PT_LOAD, PF_R | PF_X, offset, address, physical, length, length, alignment)
        for place, _ in others:
            struct.pack_into("<I", program, place, PT_NULL)
        file.seek(0)
        file.write(program)


class Image:
    """An erofs image of compact inodes without extended attributes."""

    def __init__(self, content):
        self.content = bytearray(content)
        self.meta = self.read("<I", SUPER + META) * BLOCK
        if self.read("<I", SUPER + CHECKSUMMED) & 1:
            sys.exit("the image has a checksum that would be wrong: make it with -Enosbcrc")
        if 1 << self.read("<B", SUPER + BLOCK_BITS) != BLOCK:
            sys.exit(f"the image's blocks are not of {BLOCK} bytes")

    def read(self, form, at):
        return struct.unpack_from(form, self.content, at)[0]

    def inode(self, number):
        """Where an inode is, the layout of its data, its size, and its first block."""
        at = self.meta + number * INODE_UNIT
        form, attributes, _, _, size, _, block = INODE.unpack_from(self.content, at)
        if form & 1 or attributes:
            sys.exit(f"inode {number} is not a compact one without extended attributes")
        return at, form >> 1 & 7, size, block

    def directory(self, number):
        """Name and inode number of each entry."""
        at, layout, size, block = self.inode(number)
        tail = size % BLOCK if layout == FLAT_INLINE else 0
        start, end = block * BLOCK, at + INODE_UNIT
        data = self.content[start : start + size - tail] + self.content[end : end + tail]
        for piece in (data[at : at + BLOCK] for at in range(0, len(data), BLOCK)):
            count = ENTRY.unpack_from(piece)[1] // ENTRY.size
            entries = [ENTRY.unpack_from(piece, index * ENTRY.size) for index in range(count)]
            ends = [entry[1] for entry in entries[1:]] + [len(piece)]
            for (found, start, _, _), end in zip(entries, ends):
                yield bytes(piece[start:end]).rstrip(b"\0").decode(), found

    def find(self, path):
        number = self.read("<H", SUPER + ROOT)
        for name in path.strip("/").split("/"):
            number = dict(self.directory(number))[name]
        return number

    def align(self, path):
        at, layout, size, block = self.inode(self.find(path))
        if layout != FLAT_PLAIN:
            sys.exit(f"{path}: its data is not in blocks of its own")
        data = self.content[block * BLOCK : block * BLOCK + size]
        self.content[block * BLOCK : block * BLOCK + size] = bytes(size)
        self.append(at, data)

    def fill(self, path, data):
        at, _, size, _ = self.inode(self.find(path))
        if size:
            sys.exit(f"{path}: it is not empty")
        form = struct.unpack_from("<H", self.content, at)[0]
        struct.pack_into("<H", self.content, at, form & 1 | FLAT_PLAIN << 1)
        struct.pack_into("<I", self.content, at + INODE_SIZE, len(data))
        self.append(at, data)

    def append(self, at, data):
        """Puts the data of this inode at the end."""
        self.pad()
        struct.pack_into("<I", self.content, at + INODE.size - 4, len(self.content) // BLOCK)
        self.content += data
        self.pad()
        struct.pack_into("<I", self.content, SUPER + BLOCKS, len(self.content) // BLOCK)

    def pad(self):
        self.content += bytes(-len(self.content) % HUGE_PAGE)


def change(image_path, how):
    with open(image_path, "r+b") as file:
        image = Image(file.read())
        how(image)
        file.seek(0)
        file.write(image.content)


def align(image_path, path):
    change(image_path, lambda image: image.align(path))


def fill(image_path, path, file):
    with open(file, "rb") as source:
        change(image_path, lambda image: image.fill(path, source.read()))


if __name__ == "__main__":
    {"merge": merge, "align": align, "fill": fill}[sys.argv[1]](*sys.argv[2:])
