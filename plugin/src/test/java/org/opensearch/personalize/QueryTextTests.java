package org.opensearch.personalize;

import java.util.List;

import org.junit.jupiter.api.Test;
import org.opensearch.index.query.IntervalMode;
import org.opensearch.index.query.IntervalQueryBuilder;
import org.opensearch.index.query.IntervalsSourceProvider;
import org.opensearch.index.query.Operator;
import org.opensearch.index.query.QueryBuilder;
import org.opensearch.index.query.QueryBuilders;
import org.opensearch.index.query.functionscore.FunctionScoreQueryBuilder;
import org.opensearch.search.builder.SearchSourceBuilder;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;

/** Which words of a query are the shopper's. */
class QueryTextTests {

    @Test
    void fullTextClausesAreTheShoppersWords() {
        assertEquals(
            "oat milk", text(QueryBuilders.matchQuery("title", " oat milk ").operator(Operator.AND))
        );
        assertEquals("oat milk", text(QueryBuilders.multiMatchQuery("oat milk", "title", "brand")));
        assertEquals("oat milk", text(QueryBuilders.matchPhraseQuery("title", "oat milk")));
        assertEquals("oat*", text(QueryBuilders.queryStringQuery("oat*")));
        assertEquals("oa", text(QueryBuilders.prefixQuery("title", "oa")));
        assertEquals("oa*", text(QueryBuilders.wildcardQuery("title", "oa*")));
        assertEquals("oak", text(QueryBuilders.fuzzyQuery("title", "oak")));
    }

    @Test
    void intervalsSayWordsAndHowTheyStand() {
        IntervalsSourceProvider words =

            new IntervalsSourceProvider.Match(
                "oat milk", 4, IntervalMode.ORDERED, null, null, null
            );
        assertEquals("oat milk", text(new IntervalQueryBuilder("title", words)));
    }

    @Test
    void wordsOfSeveralClausesAreJoinedOnce() {
        QueryBuilder query = QueryBuilders.boolQuery()
            .must(QueryBuilders.matchQuery("title", "milk"))
            .should(QueryBuilders.matchQuery("brand", "milk"))
            .should(QueryBuilders.disMaxQuery().add(QueryBuilders.matchQuery("title", "oat")));
        assertEquals("milk oat", text(query));
    }

    @Test
    void exactClausesAndFiltersAreTheShops() {
        QueryBuilder query = QueryBuilders.boolQuery()
            .must(new FunctionScoreQueryBuilder(QueryBuilders.matchQuery("title", "milk")))
            .filter(QueryBuilders.matchQuery("brand", "acme"))
            .mustNot(QueryBuilders.matchQuery("title", "soy"))
            .should(QueryBuilders.termQuery("brand", "dairy"));
        assertEquals("milk", text(query));
        assertNull(text(QueryBuilders.termQuery("brand", "dairy")));
        assertNull(text(QueryBuilders.matchAllQuery()));
        assertNull(QueryText.of(new SearchSourceBuilder()));
    }

    @Test
    void ubiSaysItOutright() {
        SearchSourceBuilder source = new SearchSourceBuilder();
        source.query(QueryBuilders.matchQuery("title", "milk"));
        source.ext(List.of(Fixtures.foreign("ubi", "{\"user_query\":\" oat drink \"}")));
        assertEquals("oat drink", QueryText.of(source));
    }

    @Test
    void overlongTextIsCut() {
        assertEquals(1000, text(QueryBuilders.matchQuery("title", "x".repeat(1001))).length());
        String smiles = "😀".repeat(1001); // two chars each, of which none may be halved
        assertEquals("😀".repeat(1000), text(QueryBuilders.matchQuery("title", smiles)));
    }

    private static String text(QueryBuilder query) {
        return QueryText.of(new SearchSourceBuilder().query(query));
    }
}
