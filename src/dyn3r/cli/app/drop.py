"""Script of the page that takes dropped files, and makes a zip archive of dropped images."""

from dyn3r.viewer.viser_internals import FIRST_UPLOAD

DROP = """
(() => {
  if (window.dyn3rDrop) return;
  window.dyn3rDrop = true;
  const isImage = name => /\\.(png|jpe?g|webp|bmp|tiff?|heic)$/i.test(name);
  const table = Array.from({length: 256}, (_, n) => {
    for (let k = 0; k < 8; k++) n = n & 1 ? 0xEDB88320 ^ (n >>> 1) : n >>> 1;
    return n >>> 0;
  });
  const crc = bytes => {
    let c = 0xFFFFFFFF;
    for (const byte of bytes) c = table[(c ^ byte) & 255] ^ (c >>> 8);
    return (c ^ 0xFFFFFFFF) >>> 0;
  };
  // sizes of fields in bytes and their values, little-endian
  const record = (...fields) => {
    const view = new DataView(new ArrayBuffer(fields.reduce((sum, [size]) => sum + size, 0)));
    let at = 0;
    for (const [size, value] of fields) {
      if (size === 2) view.setUint16(at, value, true); else view.setUint32(at, value, true);
      at += size;
    }
    return new Uint8Array(view.buffer);
  };
  const zipped = async files => {  // stored, as images are compressed already
    const parts = [], directory = [];
    let offset = 0, length = 0;
    for (const [path, file] of files) {
      const name = new TextEncoder().encode(path);
      const bytes = new Uint8Array(await file.arrayBuffer());
      // version, UTF-8, stored, time, date (1980-01-01), checksum, sizes, length of the name
      const common = [[2, 20], [2, 0x800], [2, 0], [2, 0], [2, 33], [4, crc(bytes)],
        [4, bytes.length], [4, bytes.length], [2, name.length], [2, 0]];
      const head = record([4, 0x04034b50], ...common);
      parts.push(head, name, bytes);
      const entry = record([4, 0x02014b50], [2, 20], ...common, [2, 0], [2, 0], [2, 0], [4, 0],
        [4, offset]);
      directory.push(entry, name);
      offset += head.length + name.length + bytes.length;
      length += entry.length + name.length;
    }
    const end = record([4, 0x06054b50], [2, 0], [2, 0], [2, files.length], [2, files.length],
      [4, length], [4, offset], [2, 0]);
    return new File([...parts, ...directory, end], 'images.zip');
  };
  const inside = async (entry, path, found) => {
    if (entry.isFile) {
      const file = await new Promise((ok, no) => entry.file(ok, no));
      found.push([path + file.name, file]);
      return;
    }
    const reader = entry.createReader();
    for (;;) {  // a reader gives at most 100 entries at a time
      const some = await new Promise((ok, no) => reader.readEntries(ok, no));
      if (!some.length) return;
      for (const child of some) await inside(child, path + entry.name + '/', found);
    }
  };
  const dropped = async transfer => {
    const entries = [...transfer.items].map(i => i.webkitGetAsEntry && i.webkitGetAsEntry());
    const files = [...transfer.files];
    if (entries.some(entry => entry && entry.isDirectory)) {
      const found = [];
      for (const entry of entries) if (entry) await inside(entry, '', found);
      const images = found.filter(([path]) => isImage(path));
      // a folder without images may hold known cameras
      const cameras = found.filter(([path]) => /\\.(bin|txt|json|npz|dyn3r)$/i.test(path));
      const chosen = images.length ? images : cameras;
      return chosen.length ? zipped(chosen) : null;
    }
    const images = files.filter(file => isImage(file.name));
    return images.length > 1 ? zipped(images.map(file => [file.name, file])) : files[0];
  };
  window.addEventListener('dragover', event => event.preventDefault());
  window.addEventListener('drop', async event => {
    event.preventDefault();
    const input = FIRST_UPLOAD;
    if (!input) return;
    const file = await dropped(event.dataTransfer);
    if (!file) return;
    const transfer = new DataTransfer();
    transfer.items.add(file);
    input.files = transfer.files;
    input.dispatchEvent(new Event('change', {bubbles: true}));
  });
})();
""".replace("FIRST_UPLOAD", FIRST_UPLOAD)
"""A dropped folder, and several dropped images, become one archive; other files stay. Of a folder
the images are taken, or without any the files that may be cameras."""
