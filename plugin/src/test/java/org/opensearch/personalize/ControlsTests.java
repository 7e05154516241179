package org.opensearch.personalize;

import java.io.IOException;
import java.net.URI;
import java.util.List;
import java.util.Map;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;
import org.opensearch.core.common.ParsingException;
import org.opensearch.core.common.io.stream.StreamOutput;
import org.opensearch.core.xcontent.XContentBuilder;
import org.opensearch.core.xcontent.XContentParseException;
import org.opensearch.search.SearchExtBuilder;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

/** What a search may ask for, and what counts when several places say it. */
class ControlsTests {

    private final ProcessorConfig config = Fixtures.config(URI.create("http://127.0.0.1:1"));

    @Test
    void searchSaysMoreThanTheConfiguration() {
        Controls controls = Controls.of(
            Fixtures.exts(
                "{\"enabled\":true,\"user_id\":\"u\",\"session_id\":\"s\",\"window_size\":30,"
                    + "\"weight\":0.5,\"attributes\":{\"age\":\"35-44\",\"size\":2},"
                    + "\"diversity\":0.3,\"explain\":true,\"state\":9}"
            ),
            config
        );
        assertEquals(
            new Controls(
                true,
                "u",
                "s",
                30,
                0.5,
                Map.of("age", "35-44", "size", 2),
                0.3,
                true,
                9L
            ),
            controls
        );
    }

    @Test
    void silentSearchIsOnAndAnonymous() {
        assertEquals(
            new Controls(true, null, null, 100, 1.0, Map.of(), 0.0, false, null),
            Controls.of(List.of(), config)
        );
    }

    @Test
    void nullMeansTheSameAsAbsence() {
        String nulls = "{\"enabled\":null,\"user_id\":null,\"window_size\":null,\"weight\":null,"
            + "\"attributes\":null,\"diversity\":null,\"explain\":null,\"state\":null}";
        assertEquals(Controls.of(List.of(), config), Controls.of(Fixtures.exts(nulls), config));
    }

    @Test
    void attributesMayComeAsPairs() {
        assertEquals(
            Map.of("age", "35-44", "region", "north west"),
            Fixtures.ext("{\"attributes\":\"age=35-44&region=north+west\"}").shopper().attributes()
        );
    }

    @Test
    void numberedUsersKeepTheirDigits() {
        String id = "12345678901234567890";
        assertEquals(id, Controls.of(Fixtures.exts("{\"user_id\":" + id + "}"), config).userId());
    }

    @Test
    void usersOfOtherConventionsAreTakenInTheirOrder() {
        ForeignExtBuilder ubi = Fixtures.foreign("ubi", "{\"client_id\":\"c\",\"query_id\":\"q\"}");
        ForeignExtBuilder amazon =
            Fixtures.foreign("personalize_request_parameters", "{\"user_id\":\"a\"}");
        assertEquals("c", Controls.of(List.of(amazon, ubi), config).userId());
        assertEquals("a", Controls.of(List.of(amazon), config).userId());
        assertEquals(
            "u", Controls.of(List.of(ubi, Fixtures.ext("{\"user_id\":\"u\"}")), config).userId()
        );
        ForeignExtBuilder absent = Fixtures.foreign("ubi", "{\"client_id\":\"\"}");
        assertEquals("a", Controls.of(List.of(absent, amazon), config).userId());
    }

    /** A plugin that owns a section may write its object alone, or the object's fields. */
    @ParameterizedTest
    @ValueSource(booleans = { false, true })
    void userIsFoundHoweverItsSectionWritesItself(boolean asFields) {
        ForeignExtBuilder ubi = Fixtures.foreign("ubi", "{\"client_id\":\"c\"}");
        SearchExtBuilder owners = new SearchExtBuilder() {
            @Override
            public String getWriteableName() {
                return "ubi";
            }

            @Override
            public XContentBuilder toXContent(XContentBuilder json, Params params)
                throws IOException {
                return asFields
                    ? json.field("client_id", "c")
                    : json.value(Map.of("client_id", "c"));
            }

            @Override
            public void writeTo(StreamOutput out) throws IOException {
                ubi.writeTo(out);
            }

            @Override
            public int hashCode() {
                return 0;
            }

            @Override
            public boolean equals(Object other) {
                return this == other;
            }
        };
        assertEquals("c", Controls.of(List.of(owners), config).userId());
    }

    @Test
    void idsKeepTheirSpacesAndForeignOnesThatAreNoneAreLeftOut() {
        assertEquals(" u1", Controls.of(Fixtures.exts("{\"user_id\":\" u1\"}"), config).userId());
        for (String none : List.of("\" \"", "1.5", "\"" + "u".repeat(513) + "\"")) {
            ForeignExtBuilder ubi = Fixtures.foreign("ubi", "{\"client_id\":" + none + "}");
            assertNull(Controls.of(List.of(ubi), config).userId(), none);
        }
    }

    @Test
    void halfACharacterIsNoUser() {
        assertThrows(
            XContentParseException.class,
            () -> Fixtures.ext("{\"user_id\":\"\\ud800\"}")
        );
    }

    @Test
    void configuredPathNamesTheUser() {
        ProcessorConfig elsewhere = new ProcessorConfig(
            config.endpoint(),
            100,
            1000,
            1.0,
            10,
            OnFailure.KEEP_ORDER,
            "_id",
            "ubi.query_attributes.shopper"
        );
        List<SearchExtBuilder> exts = List.of(
            Fixtures.foreign("ubi", "{\"client_id\":\"c\",\"query_attributes\":{\"shopper\":7}}")
        );
        assertEquals("7", Controls.of(exts, elsewhere).userId());
    }

    @ParameterizedTest
    @ValueSource(strings = {
        "{\"window_size\":0}",
        "{\"weight\":1.5}",
        "{\"weight\":-1}",
        "{\"diversity\":1.5}",
        "{\"attributes\":3}",
        "{\"attributes\":{\"age\":[1]}}",
        "{\"enabled\":\"maybe\"}",
        "{\"unknown\":1}",
        "{\"window_size\":\"many\"}",
        "{\"user_id\":{}}" })
    void valuesThatAControlCannotHaveAreRefused(String text) {
        RuntimeException error = assertThrows(RuntimeException.class, () -> Fixtures.ext(text));
        assertTrue(
            error instanceof ParsingException || error instanceof XContentParseException,
            error.toString()
        );
        assertTrue(error.getMessage().contains("personalize"), error.getMessage());
    }

    @Test
    void overlongUserIsRefused() {
        assertEquals(
            512,
            Fixtures.ext("{\"user_id\":\"" + "u".repeat(512) + "\"}").shopper().userId().length()
        );
        assertThrows(
            XContentParseException.class,
            () -> Fixtures.ext("{\"user_id\":\"" + "u".repeat(513) + "\"}")
        );
    }

    @Test
    void windowLargerThanTheNodeAllowsIsRefused() {
        assertEquals(
            1000, Controls.of(Fixtures.exts("{\"window_size\":1000}"), config).windowSize()
        );
        IllegalArgumentException error = assertThrows(
            IllegalArgumentException.class,
            () -> Controls.of(Fixtures.exts("{\"window_size\":1001}"), config)
        );
        assertEquals("ext.personalize.window_size is 1001, must be 1-1000", error.getMessage());
    }

    @Test
    void switchesAreUnderstoodAsTheSidecarDoes() {
        assertFalse(Controls.of(Fixtures.exts("{\"enabled\":\"off\"}"), config).enabled());
        assertTrue(Controls.of(Fixtures.exts("{\"explain\":\"on\"}"), config).explain());
        assertNull(Controls.of(Fixtures.exts("{}"), config).userId());
    }
}
