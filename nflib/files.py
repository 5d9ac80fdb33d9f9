"""The one whole-or-nothing file writer."""
import contextlib, os
from pathlib import Path
def write_whole(path, content):
    path=Path(path); path.parent.mkdir(parents=True,exist_ok=True)
    part=path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_bytes(content.encode() if isinstance(content,str) else content)
    os.replace(part,path)
