import sharp from "sharp";

const WIDTH_DEFAULT = 320;
const WIDTH_MIN = 16;
const WIDTH_MAX = 2048;
const INPUT_BYTES_MAX = 20 * 1024 * 1024;
/** A few kilobytes of JPEG can claim to be gigabytes of pixels. */
const INPUT_PIXELS_MAX = 50_000_000;

// Every call brings another picture and the instance has one CPU's worth of work: caching and more threads would only cost memory.
sharp.cache(false);
sharp.concurrency(1);

export default async function thumbnail(request) {
  if (request.method !== "POST") return refuse(405, "POST a JPEG", { allow: "POST" });
  const width = readWidth(new URL(request.url).searchParams);
  if (width === null) return refuse(400, `width must be a whole number from ${WIDTH_MIN} to ${WIDTH_MAX}`);
  const input = await readBytes(request.body, INPUT_BYTES_MAX);
  if (input === null) return refuse(413, `the picture is larger than ${INPUT_BYTES_MAX} bytes`);
  if (input.length === 0) return refuse(400, "the body is empty: POST a JPEG");
  if (!isJpeg(input)) return refuse(415, "the body is not a JPEG");
  try {
    const { data, info } = await sharp(input, { failOn: "error", limitInputPixels: INPUT_PIXELS_MAX })
      .autoOrient()
      .resize({ width, withoutEnlargement: true })
      .webp({ quality: 80 })
      .toBuffer({ resolveWithObject: true });
    console.log(`${input.length} bytes of JPEG became ${info.width} × ${info.height}, ${data.length} bytes of WebP`);
    return new Response(data, { headers: { "content-type": "image/webp" } });
  } catch (error) {
    return refuse(400, `the JPEG cannot be read: ${error.message.trim().split("\n")[0]}`);
  }
}

/** Null: not a width that is allowed. */
function readWidth(query) {
  const text = query.get("width");
  if (text === null) return WIDTH_DEFAULT;
  const width = /^\d{1,4}$/.test(text) ? Number(text) : 0;
  return width >= WIDTH_MIN && width <= WIDTH_MAX ? width : null;
}

/** The first bytes tell, whatever the request calls it: `curl --data-binary` calls every body a form. */
function isJpeg(bytes) {
  return bytes[0] === 0xff && bytes[1] === 0xd8 && bytes[2] === 0xff;
}

/** Null: there are more than `bytesMax`. */
async function readBytes(body, bytesMax) {
  const chunks = [];
  let bytes = 0;
  for await (const chunk of body ?? []) {
    bytes += chunk.length;
    if (bytes > bytesMax) return null;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

function refuse(status, error, headers = {}) {
  return Response.json({ error }, { status, headers });
}
