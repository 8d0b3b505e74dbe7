// @ts-check
/** Reading one file out of a zip archive, with what the browser brings along. */

const END = 0x06054b50;
const ENTRY = 0x02014b50;
const LONGEST_COMMENT = 65_557;

/**
 * The text of the first file in an archive whose name ends so. Rejects when there is none.
 * @param {Blob} archive @param {string} name @returns {Promise<string>}
 */
export async function unzip(archive, name) {
  const tail = await bytes(archive.slice(-LONGEST_COMMENT));
  let end = tail.byteLength - 22;
  while (end >= 0 && tail.getUint32(end, true) !== END) end--;
  if (end < 0) throw new Error("no end of archive");
  const start = tail.getUint32(end + 16, true);
  const directory = await bytes(archive.slice(start, start + tail.getUint32(end + 12, true)));
  for (let place = 0; place + 46 <= directory.byteLength && directory.getUint32(place, true) === ENTRY; ) {
    const length = directory.getUint16(place + 28, true);
    const found = new TextDecoder().decode(new Uint8Array(directory.buffer, place + 46, length));
    if (found === name || found.endsWith(`/${name}`)) return inflate(archive, directory, place);
    place += 46 + length + directory.getUint16(place + 30, true) + directory.getUint16(place + 32, true);
  }
  throw new Error("no such file in the archive");
}

/** @param {Blob} archive @param {DataView} directory @param {number} place */
async function inflate(archive, directory, place) {
  const at = directory.getUint32(place + 42, true);
  const head = await bytes(archive.slice(at, at + 30));
  const start = at + 30 + head.getUint16(26, true) + head.getUint16(28, true);
  const packed = archive.slice(start, start + directory.getUint32(place + 20, true));
  const plain = directory.getUint16(place + 10, true) === 0;
  const stream = plain ? packed.stream() : packed.stream().pipeThrough(new DecompressionStream("deflate-raw"));
  return new Response(stream).text();
}

/** @param {Blob} blob */
const bytes = async (blob) => new DataView(await blob.arrayBuffer());
