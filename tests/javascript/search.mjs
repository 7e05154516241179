// Uses OpenSearch's own client against the URL in argv[2] and prints what came back as JSON.
import { Client } from "@opensearch-project/opensearch";

const [node, index, size] = process.argv.slice(2);
const client = new Client({
  node,
  headers: { "X-Personalize-User": "u1" },
  enableLongNumeralSupport: true, // whole numbers beyond 2^53 become BigInt
});
const query = { match: { title: "milk" } };
const ids = (response) => response.body.hits.hits.map((hit) => hit._id);

const found = await client.search({ index, body: { query }, size: Number(size) });
const off = await client.search(
  { index, body: { query }, size: Number(size) },
  { headers: { "X-Personalize": "off" } },
);
const many = await client.msearch({ body: [{ index }, { query }, { index: "none" }, {}] });
const scrolled = [];
for await (const page of client.helpers.scrollSearch({ index, body: { query, size: 50 } })) {
  scrolled.push(...page.documents);
}
const bulk = await client.helpers.bulk({
  datasource: Array.from({ length: 120 }, (_, number) => ({ number, title: "milk" })),
  onDocument: (row) => ({ index: { _index: `${index}-js`, _id: String(row.number) } }),
  refreshOnCompletion: true,
});
const exists = await client.exists({ index: `${index}-js`, id: "7" });
await client.indices.delete({ index: `${index}-js` });
const missing = await client.search({ index: "no-such" }).catch((error) => error);
const broken = await client
  .search({ index, body: { query: { no_such: {} } } })
  .catch((error) => error);

console.log(JSON.stringify({
  found: ids(found),
  off: ids(off),
  status: found.headers["x-personalize-status"],
  total: found.body.hits.total.value,
  size: String(found.body.hits.hits[0]._source.size),
  many: many.body.responses.map((one) => one.status),
  scrolled: scrolled.length,
  loaded: bulk.successful,
  exists: exists.body,
  errors: [missing, broken].map((error) => [error.name, error.statusCode, error.body.error.type]),
}));
