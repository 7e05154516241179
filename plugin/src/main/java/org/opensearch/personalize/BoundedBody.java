package org.opensearch.personalize;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.net.http.HttpResponse;
import java.nio.ByteBuffer;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.Flow;

/** Gathers an answer's body, and gives up one that grows too large for the node to hold. */
final class BoundedBody implements HttpResponse.BodySubscriber<byte[]> {

    private final int mostBytes;
    private final ByteArrayOutputStream gathered = new ByteArrayOutputStream();
    private final CompletableFuture<byte[]> body = new CompletableFuture<>();
    private Flow.Subscription subscription;

    private BoundedBody(int mostBytes) {
        this.mostBytes = mostBytes;
    }

    /** Returns a handler under which a larger body ends its exchange with an IOException. */
    static HttpResponse.BodyHandler<byte[]> handler(int mostBytes) {
        return info -> new BoundedBody(mostBytes);
    }

    @Override
    public CompletionStage<byte[]> getBody() {
        return body;
    }

    @Override
    public void onSubscribe(Flow.Subscription given) {
        subscription = given;
        given.request(Long.MAX_VALUE);
    }

    @Override
    public void onNext(List<ByteBuffer> pieces) {
        for (ByteBuffer piece : pieces) {
            if (gathered.size() + piece.remaining() > mostBytes) {
                subscription.cancel();
                onError(new IOException("answer is larger than " + mostBytes + " bytes"));
                return;
            }
            byte[] bytes = new byte[piece.remaining()];
            piece.get(bytes);
            gathered.writeBytes(bytes);
        }
    }

    @Override
    public void onError(Throwable error) {
        body.completeExceptionally(error);
    }

    @Override
    public void onComplete() {
        body.complete(gathered.toByteArray());
    }
}
