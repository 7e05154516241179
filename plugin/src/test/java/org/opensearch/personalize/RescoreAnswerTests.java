package org.opensearch.personalize;

import java.nio.charset.StandardCharsets;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

/** Answers that are orders, and the many that are not. */
class RescoreAnswerTests {

    @Test
    void orderIsRead() throws SkipException {
        RescoreAnswer answer = parse(
            "{\"applied\":true,\"reason\":null,\"state\":17,\"model\":\"v\",\"order\":[1,0],"
                + "\"scores\":[0.1,0.2],\"unknown\":1}"
        );
        assertArrayEquals(new int[]{ 1, 0 }, answer.order());
        assertEquals(17L, answer.state());
        assertEquals("v", answer.model());
        assertEquals(null, answer.refusal());
    }

    @Test
    void skipIsRead() throws SkipException {
        assertEquals(
            SkipReason.NO_HISTORY, parse("{\"applied\":false,\"reason\":\"no_history\"}").refusal()
        );
        assertEquals(
            SkipReason.OTHER, parse("{\"applied\":false,\"reason\":\"new_word\"}").refusal()
        );
        assertEquals(SkipReason.OTHER, parse("{\"applied\":false}").refusal());
    }

    @ParameterizedTest
    @ValueSource(strings = {
        "",
        "[]",
        "nonsense",
        "{",
        "{}",
        "{\"applied\":\"yes\"}",
        "{\"applied\":true}",
        "{\"applied\":true,\"order\":[0]}",
        "{\"applied\":true,\"order\":[0,0]}",
        "{\"applied\":true,\"order\":[0,2]}",
        "{\"applied\":true,\"order\":[0,-1]}",
        "{\"applied\":true,\"order\":[0,1.5]}",
        "{\"applied\":true,\"order\":[0,1,2]}",
        "{\"applied\":true,\"order\":[0,null]}",
        "{\"applied\":true,\"order\":[0,4294967297]}",
        "{\"applied\":true,\"order\":{\"0\":1}}",
        "{\"applied\":true,\"order\":[1,0],\"explanations\":[{}]}",
        "{\"applied\":true,\"order\":[1,0],\"explanations\":[1,2]}" })
    void nonsenseIsNoAnswer(String body) {
        SkipException skip = assertThrows(SkipException.class, () -> parse(body));
        assertEquals(SkipReason.SIDECAR_ERROR, skip.reason());
    }

    @Test
    void errorStatusIsNoAnswer() {
        byte[] body = "{\"applied\":true,\"order\":[0]}".getBytes(StandardCharsets.UTF_8);
        SkipException skip =
            assertThrows(SkipException.class, () -> RescoreAnswer.parse(500, body, 1));
        assertEquals(SkipReason.SIDECAR_ERROR, skip.reason());
    }

    private static RescoreAnswer parse(String body) throws SkipException {
        return RescoreAnswer.parse(200, body.getBytes(StandardCharsets.UTF_8), 2);
    }
}
