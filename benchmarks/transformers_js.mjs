// Classifies images with transformers.js, and prints one JSON object for each.
//
//     npm install @huggingface/transformers
//     node benchmarks/transformers_js.mjs FOLDER DTYPE IMAGE ...
//
// FOLDER is what `convnextv2 push --dry_run --out FOLDER` wrote. DTYPE is fp32 or q8.
import { basename, dirname, resolve } from "node:path";
import { env, pipeline } from "@huggingface/transformers";

const [folder, dtype, ...images] = process.argv.slice(2);
env.allowRemoteModels = false;
env.localModelPath = dirname(resolve(folder));
const classify = await pipeline("image-classification", basename(folder), { dtype });
for (const image of images) {
  const predictions = await classify(resolve(image), { top_k: 1000 });
  console.log(JSON.stringify({ image, predictions }));
}
