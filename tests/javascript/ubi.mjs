// Sends what ubi.js, OpenSearch's collector for shop pages, sends: the same fields, in an array of
// one. argv: base URL, client id, item id. Prints the answers as JSON.
const [base, client_id, item] = process.argv.slice(2);
const headers = { "Content-type": "application/json", Accept: "application/json" };
const post = async (path, entry) => {
  const body = JSON.stringify([entry]);
  const response = await fetch(base + path, { method: "POST", headers, body });
  return response.json();
};
const said = { timestamp: new Date().toISOString(), message_type: "INFO", message: "" };

const query = {
  application: "shop",
  query_id: "q-1",
  user_query: "white milk",
  client_id,
  object_id_field: "item_id",
  ...said,
  query_attributes: {},
};
const event = {
  application: "shop",
  action_name: "add_to_cart",
  query_id: "q-1",
  session_id: "s-1",
  client_id,
  user_id: "",
  ...said,
  event_attributes: {
    object: { object_id: item, object_id_field: "item_id", description: "a milk", price: 1.99 },
    position: {},
  },
};

const asked = await post("/ubi_queries", query);
const told = await post("/ubi_events", event);
console.log(JSON.stringify({ query: asked, event: told }));
