import java.io.IOException;
import java.util.concurrent.CompletableFuture;

import org.apache.hc.core5.http.HttpHost;
import org.apache.hc.core5.http.ParseException;
import org.apache.hc.core5.http.io.entity.EntityUtils;
import org.opensearch.client.Request;
import org.opensearch.client.Response;
import org.opensearch.client.ResponseException;
import org.opensearch.client.ResponseListener;
import org.opensearch.client.RestClient;

/** Uses OpenSearch's REST client against a URL and an index, and prints each answer on a line. */
public class Search {

    private static final String MILK = "{\"query\":{\"match\":{\"title\":\"milk\"}},\"size\":20}";

    public static void main(String[] args) throws Exception {
        HttpHost node = HttpHost.create(args[0]);
        String index = args[1];
        for (boolean isCompressed : new boolean[] { false, true }) {
            try (
                RestClient client = RestClient.builder(node).setCompressionEnabled(isCompressed).build()
            ) {
                print(client.performRequest(search(index, "u1")));
                print(later(client, search(index, "u1")).get());
                print(client.performRequest(search(index, null)));
                print(client.performRequest(new Request("HEAD", "/" + index)));
                Request write = new Request("PUT", "/" + index + "-java/_doc/1?refresh=true");
                write.setJsonEntity("{\"title\":\"m\u00e9lk\"}");
                print(client.performRequest(write));
                print(client.performRequest(new Request("GET", "/" + index + "-java/_doc/1")));
                print(client.performRequest(new Request("DELETE", "/" + index + "-java")));
                try {
                    client.performRequest(search("no-such", "u1"));
                } catch (ResponseException refused) {
                    print(refused.getResponse());
                }
            }
        }
    }

    private static Request search(String index, String user) {
        Request request = new Request("POST", "/" + index + "/_search");
        request.setJsonEntity(MILK);
        if (user != null) {
            request.setOptions(
                request.getOptions().toBuilder().addHeader("X-Personalize-User", user)
            );
        }
        return request;
    }

    private static CompletableFuture<Response> later(RestClient client, Request request) {
        CompletableFuture<Response> future = new CompletableFuture<>();
        client.performRequestAsync(request, new ResponseListener() {
            @Override
            public void onSuccess(Response response) {
                future.complete(response);
            }

            @Override
            public void onFailure(Exception failure) {
                future.completeExceptionally(failure);
            }
        });
        return future;
    }

    private static void print(Response response) throws IOException, ParseException {
        var entity = response.getEntity();
        String body = entity == null ? "" : EntityUtils.toString(entity);
        System.out.println(
            response.getStatusLine().getStatusCode() + "\t"
                + response.getHeader("X-Personalize-Status") + "\t" + body
        );
    }
}
